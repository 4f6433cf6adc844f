"""A deliberate fault; README.md says how it is read."""

PROMISE = "a gradient that is a view of its bucket is there once when the optimizer steps"
SOURCE = "shoestring/planner/buckets.py"
OLD = "        editor.storages[index] = dataclasses.replace(fresh, death=done)\n"
NEW = ""
TESTS = (
    "tests/planner/test_wrapped.py"
    "::test_views_stand_too_and_cost_nothing_where_all_gradients_are_there",
)
