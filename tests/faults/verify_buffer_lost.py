"""A deliberate fault; README.md says how it is read."""

PROMISE = "verify puts back a buffer that the forward replaced"
SOURCE = "shoestring/planner/verify.py"
OLD = "module._buffers[name] = buffer  # a forward"
NEW = "pass  # a forward"
TESTS = ("tests/planner/test_verify.py::test_everything_is_bitwise_as_before",)
