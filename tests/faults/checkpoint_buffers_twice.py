"""A deliberate fault; README.md says how it is read."""

PROMISE = "a recomputed block does not update its buffers a second time"
SOURCE = "shoestring/activations/checkpoint.py"
OLD = "            _put(module, {name: kept.value() for name, kept in buffers.items()})"
NEW = "            del module, buffers"
TESTS = (
    "tests/activations/test_checkpoint.py::test_exact_with_a_block_used_several_times",
    "tests/activations/test_checkpoint.py::test_exact_with_a_buffer_that_the_forward_replaces",
)
