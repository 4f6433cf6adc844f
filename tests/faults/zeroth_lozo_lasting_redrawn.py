"""A deliberate fault; README.md says how it is read."""

PROMISE = "one factor of LOZO's directions lasts for an interval"
SOURCE = "shoestring/zeroth/lozo.py"
OLD = '(draw // group["interval"], k)'
NEW = "(draw, k)"
TESTS = ("tests/zeroth/test_lozo.py::test_one_factor_lasts_and_the_other_does_not",)
