"""A deliberate fault; README.md says how it is read."""

PROMISE = "native code gives the bits of torch's operators"
SOURCE = "shoestring/kernels/streams_numba.py"
OLD = "_add_half_word(high, second_half, scale)"
NEW = "_add_half_word(high, first_half, scale)"
TESTS = ("tests/kernels/test_streams.py::test_both_forms_do_what_the_oracle_does",)
