"""A deliberate fault; README.md says how it is read."""

PROMISE = "check_technique compares gradients to 1e-12 of the largest"
SOURCE = "shoestring/testing/techniques.py"
OLD = "TOLERANCE: Final = 1e-12"
NEW = "TOLERANCE: Final = 1e-3"
TESTS = ("tests/test_testing.py::test_each_broken_technique_is_caught",)
