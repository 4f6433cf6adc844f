"""A deliberate fault; README.md says how it is read."""

PROMISE = "the curvature that scales a step is never negative"
SOURCE = "shoestring/zeroth/hizoo.py"
OLD = "abs(bend) / (2 * radius**2)"
NEW = "bend / (2 * radius**2)"
TESTS = ("tests/zeroth/test_hizoo.py::test_what_bends_downwards_counts_as_much",)
