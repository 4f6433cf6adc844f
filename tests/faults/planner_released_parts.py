"""A deliberate fault; README.md says how it is read."""

PROMISE = "gradients are never used in the backward of micro-batches"
SOURCE = "shoestring/planner/search.py"
OLD = "if any(t.slot is Slot.STEP and t.refuse(plain) for t in techniques):"
NEW = "if False:"
TESTS = (
    "tests/planner/test_planning.py::test_gradients_are_never_used_in_backward_of_micro_batches",
)
