"""A deliberate fault; README.md says how it is read."""

PROMISE = "a self-check compares what became of the arguments"
SOURCE = "shoestring/activations/remat/check.py"
OLD = """\
        found |= {f"{name} afterwards": t for name, t in given.changed().items()}
"""
NEW = ""
TESTS = (
    "tests/activations/remat/test_check.py::test_a_change_of_an_argument_that_is_lost_is_found",
)
