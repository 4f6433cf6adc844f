"""A deliberate fault; README.md says how it is read."""

PROMISE = "an error that is not about memory passes untouched"
SOURCE = "shoestring/planner/oom.py"
OLD = "        if isinstance(error, ShoestringError) or not _ran_out(error):\n"
NEW = "        if isinstance(error, ShoestringError):\n"
TESTS = ("tests/planner/test_oom.py::test_other_errors_pass_untouched[error0]",)
