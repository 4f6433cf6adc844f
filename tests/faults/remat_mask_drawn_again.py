"""A deliberate fault; README.md says how it is read."""

PROMISE = "a dropout that runs again draws the numbers it drew before"
SOURCE = "shoestring/activations/remat/capture/randomness.py"
OLD = "    _set_state(state, device)\n    try"
NEW = "    try"
TESTS = ("tests/activations/remat/test_emission.py::test_equal_to_the_plain_step_to_the_last_bit",)
