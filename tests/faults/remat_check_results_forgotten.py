"""A deliberate fault; README.md says how it is read."""

PROMISE = "a self-check stays within its budget, the first run's results included"
SOURCE = "shoestring/activations/remat/check_bytes.py"
OLD = " + _bytes(results) + copies"
NEW = " + copies"
TESTS = ("tests/activations/remat/test_check.py::test_what_is_foreseen_is_what_a_check_takes",)
