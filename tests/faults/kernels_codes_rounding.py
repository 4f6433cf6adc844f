"""A deliberate fault; README.md says how it is read."""

PROMISE = "a product is rounded once to a half, to nearest, ties to even"
SOURCE = "shoestring/kernels/codes_numba.py"
OLD = "added = builder.add(odd, _same(_INT, (1 << (count - 1)) - 1))"
NEW = "added = builder.mul(odd, _same(_INT, 0))"
TESTS = ("tests/kernels/test_codes.py::test_every_half_is_compared_and_multiplied",)
