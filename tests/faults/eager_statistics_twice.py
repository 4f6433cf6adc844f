"""A deliberate fault; README.md says how it is read."""

PROMISE = "running statistics move once"
SOURCE = "shoestring/activations/remat/eager/tape.py"
OLD = "    return tuple([None if i in (mean, variance) else value for i, value in enumerate(args)])"
NEW = "    return args"
TESTS = (
    "tests/activations/test_rematerialisation.py::test_exact_with_dropout_and_running_statistics",
)
