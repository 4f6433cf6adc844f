"""A deliberate fault; README.md says how it is read."""

PROMISE = "small updates of few bits are kept in the mean"
SOURCE = "shoestring/kernels/streams_numba.py"
OLD = "            if at_random:\n"
NEW = "            if False:\n"
TESTS = ("tests/kernels/test_streams.py::test_rounding_at_random_has_the_right_mean",)
