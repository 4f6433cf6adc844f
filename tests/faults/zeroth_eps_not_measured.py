"""A deliberate fault; README.md says how it is read."""

PROMISE = "the eps that is suggested lies between the rounding of the loss and its curving"
SOURCE = "shoestring/zeroth/survey.py"
OLD = "return good[-1]"
NEW = "return len(tried) - 2"
TESTS = ("tests/zeroth/test_survey.py::test_eps_lies_between_rounding_and_curving",)
