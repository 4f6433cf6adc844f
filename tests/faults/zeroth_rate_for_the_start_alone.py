"""A deliberate fault; README.md says how it is read."""

PROMISE = "the rate that is suggested is right where the run ends, too"
SOURCE = "shoestring/zeroth/survey.py"
OLD = "            return curvature * max(1.0, grown)"
NEW = "            return curvature * min(1.0, grown)"
TESTS = ("tests/zeroth/test_survey.py::test_the_rate_is_right_where_the_walk_ends",)
