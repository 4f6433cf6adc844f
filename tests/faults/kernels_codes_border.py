"""A deliberate fault; README.md says how it is read."""

PROMISE = "a number on a border is in the interval below it, and one that is none in the first"
SOURCE = "shoestring/kernels/codes_numba.py"
OLD = """            above = builder.fcmp_ordered(">", values, edge)"""
NEW = """            above = builder.fcmp_unordered(">=", values, edge)"""
TESTS = ("tests/kernels/test_codes.py::test_every_half_is_compared_and_multiplied",)
