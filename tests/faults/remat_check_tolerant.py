"""A deliberate fault; README.md says how it is read."""

PROMISE = "a self-check finds a gradient that is slightly wrong"
SOURCE = "shoestring/activations/remat/check.py"
OLD = "if size > 0)"
NEW = "if size > 1e-3)"
TESTS = ("tests/activations/remat/test_check.py::test_a_gradient_that_is_slightly_wrong_is_found",)
