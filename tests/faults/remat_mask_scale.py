"""A deliberate fault; README.md says how it is read."""

PROMISE = "a dropout from its mask rounds as torch does"
SOURCE = "shoestring/activations/remat/capture/randomness.py"
OLD = "input.mul(mask).mul_(scale)"
NEW = "input.mul(mask) * (scale + 1e-6)"
TESTS = ("tests/activations/remat/test_emission.py::test_equal_to_the_plain_step_to_the_last_bit",)
