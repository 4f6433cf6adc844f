"""A deliberate fault; README.md says how it is read."""

PROMISE = "a recomputation leaves no trace in the buffers"
SOURCE = "shoestring/activations/checkpoint.py"
OLD = "            _put(module, current)"
NEW = "            del module, current"
TESTS = (
    "tests/activations/test_checkpoint.py::test_exact_with_several_forwards_before_one_backward",
)
