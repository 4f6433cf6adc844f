"""A deliberate fault; README.md says how it is read."""

PROMISE = "a percentage is of the plain peak"
SOURCE = "shoestring/core/units.py"
OLD = "return float(number) / 100"
NEW = "return float(number)"
TESTS = ("tests/core/test_units.py::test_percentages",)
