"""A deliberate fault; README.md says how it is read."""

PROMISE = "where noise hides the slope, the rate that is suggested does little harm"
SOURCE = "shoestring/zeroth/survey.py"
OLD = "    likely = max(square * (1 - unsure) - noise**2, 0.0)\n"
NEW = "    likely = square\n"
TESTS = (
    "tests/zeroth/test_survey.py::test_the_rate_makes_the_most_of_a_run",
    "tests/zeroth/test_survey.py::test_noise_adds_little_where_nothing_can_be_gained",
)
