"""A deliberate fault; README.md says how it is read."""

PROMISE = "memory that is used again is not taken for what it held"
SOURCE = "shoestring/activations/offload.py"
OLD = "if moved is None or moved.origin() is not storage:"
NEW = "if moved is None:"
TESTS = (
    "tests/activations/test_offload.py::test_memory_that_is_used_again_is_not_taken_for_what_it_held",
)
