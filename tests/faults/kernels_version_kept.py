"""A deliberate fault; README.md says how it is read."""

PROMISE = "autograd notices what native code wrote"
SOURCE = "shoestring/kernels/streams.py"
OLD = "    increment_version(tensor)\n"
NEW = ""
TESTS = ("tests/kernels/test_streams.py::test_autograd_notices_and_no_generator_does",)
