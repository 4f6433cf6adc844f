"""A deliberate fault; README.md says how it is read."""

PROMISE = "a value is made again once"
SOURCE = "shoestring/activations/remat/eager/tape.py"
OLD = "        if kept.value.base is None:\n"
NEW = "        kept.value.base = None\n        if True:\n"
TESTS = (
    "tests/activations/test_rematerialisation.py::test_exact_with_dropout_and_running_statistics",
)
