"""A deliberate fault; README.md says how it is read."""

PROMISE = "what a product of signs is added to is settled as well"
SOURCE = "shoestring/kernels/outer_numba.py"
OLD = "settled_to(x[i, j] + step * v[j], radius)"
NEW = "settled_to(x[i, j], radius) + step * v[j]"
TESTS = ("tests/kernels/test_outer.py::test_both_forms_do_what_the_oracle_does",)
