"""A deliberate fault; README.md says how it is read."""

PROMISE = "who cannot catch up is an error on all workers"
SOURCE = "shoestring/zeroth/catch_up.py"
OLD = "    if any(failed):\n"
NEW = "    if False:\n"
TESTS = ("tests/zeroth/test_catch_up.py::test_who_cannot_catch_up_is_an_error_on_all",)
