"""A deliberate fault; README.md says how it is read."""

PROMISE = "optimizer state that was half made when memory ran out does no harm"
SOURCE = "shoestring/planner/oom.py"
OLD = "    if len(kinds) <= 1:\n"
NEW = "    if kinds:\n"
TESTS = (
    "tests/planner/test_oom.py::test_state_that_was_half_made_when_memory_ran_out_does_no_harm",
)
