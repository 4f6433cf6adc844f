"""A deliberate fault; README.md says how it is read."""

PROMISE = "a rate that changes on one worker is noticed in the step"
SOURCE = "shoestring/zeroth/workers.py"
OLD = "if len({numbers[0] for numbers in sent}) > 1:"
NEW = "if False:"
TESTS = ("tests/zeroth/test_workers.py::test_workers_that_differ_are_one_error_on_all",)
