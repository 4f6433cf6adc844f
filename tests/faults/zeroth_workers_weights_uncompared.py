"""A deliberate fault; README.md says how it is read."""

PROMISE = "workers whose weights differ are refused"
SOURCE = "shoestring/zeroth/workers.py"
OLD = "weights = digest(params)"
NEW = "weights = digest(params[:1])"
TESTS = ("tests/zeroth/test_workers.py::test_workers_that_differ_are_one_error_on_all",)
