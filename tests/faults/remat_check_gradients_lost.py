"""A deliberate fault; README.md says how it is read."""

PROMISE = "a self-check leaves gradients as they were"
SOURCE = "shoestring/activations/remat/check_state.py"
OLD = "            parameter.grad = gradient"
NEW = "            parameter.grad = None"
TESTS = ("tests/activations/remat/test_check.py::test_everything_is_as_before",)
