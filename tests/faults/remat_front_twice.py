"""A deliberate fault; README.md says how it is read."""

PROMISE = "no schedule of a front stands there twice"
SOURCE = "shoestring/activations/remat/front_search.py"
OLD = "schedules.pop()"
NEW = "pass"
TESTS = (
    "tests/activations/remat/test_pareto.py::test_a_schedule_that_is_smaller_and_faster_stands_there_once",
)
