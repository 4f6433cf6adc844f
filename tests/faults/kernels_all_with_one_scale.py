"""A deliberate fault; README.md says how it is read."""

PROMISE = "tensors that are changed in one call each get factors of their own"
SOURCE = "shoestring/kernels/streams_numba.py"
OLD = "add_plain(x, keys[k], scales[k], decays[k]"
NEW = "add_plain(x, keys[k], scales[0], decays[k]"
TESTS = ("tests/kernels/test_streams.py::test_all_at_once_get_the_bits_of_one_by_one",)
