"""A deliberate fault; README.md says how it is read."""

PROMISE = "a full disk behind stdout is told in two lines"
SOURCE = "shoestring/cli/app.py"
OLD = "if error.errno not in _DISK_ERRORS:"
NEW = "if error.errno in _DISK_ERRORS:"
TESTS = ("tests/cli/test_bad_input.py::test_a_full_disk_behind_stdout",)
