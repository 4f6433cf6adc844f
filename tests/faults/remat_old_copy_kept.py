"""A deliberate fault; README.md says how it is read."""

PROMISE = "a value that is computed again is not counted before"
SOURCE = "shoestring/activations/remat/simulate.py"
OLD = "            needed.discard(value)"
NEW = "            pass"
TESTS = (
    "tests/activations/remat/test_simulate.py::test_a_copy_that_is_made_again_is_not_kept_until_then",
)
