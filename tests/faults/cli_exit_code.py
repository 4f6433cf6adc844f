"""A deliberate fault; README.md says how it is read."""

PROMISE = "an infeasible budget ends with exit code 3"
SOURCE = "shoestring/cli/app.py"
OLD = "return _fail(error.message, error.hint, error.exit_code)"
NEW = "return _fail(error.message, error.hint, 2)"
TESTS = ("tests/cli/test_list_cite.py::test_an_infeasible_budget_has_its_own_exit_code",)
