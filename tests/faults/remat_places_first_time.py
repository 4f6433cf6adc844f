"""A deliberate fault; README.md says how it is read."""

PROMISE = "what is run once is not said to be computed again"
SOURCE = "shoestring/activations/remat/timeline.py"
OLD = "* (repeats - 1)"
NEW = "* repeats"
TESTS = (
    "tests/activations/remat/test_schedule.py::test_the_stretches_hold_all_that_is_computed_again",
)
