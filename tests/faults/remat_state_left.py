"""A deliberate fault; README.md says how it is read."""

PROMISE = "replaying random numbers leaves the generator as it stood"
SOURCE = "shoestring/activations/remat/capture/randomness.py"
OLD = "        _set_state(before, device)"
NEW = "        pass"
TESTS = ("tests/activations/remat/test_emission.py::test_equal_to_the_plain_step_to_the_last_bit",)
