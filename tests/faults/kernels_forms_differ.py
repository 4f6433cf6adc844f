"""A deliberate fault; README.md says how it is read."""

PROMISE = "native code gives the bits of torch's operators"
SOURCE = "shoestring/kernels/streams_numba.py"
OLD = "rows.dtype.type(_sign(second_half, b))"
NEW = "rows.dtype.type(_sign(first_half, b))"
TESTS = ("tests/kernels/test_streams.py::test_both_forms_do_what_the_oracle_does",)
