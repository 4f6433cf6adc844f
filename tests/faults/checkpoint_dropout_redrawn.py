"""A deliberate fault; README.md says how it is read."""

PROMISE = "a recomputed block draws the same dropout mask"
SOURCE = "shoestring/activations/checkpoint.py"
OLD = "preserve_rng_state=True"
NEW = "preserve_rng_state=False"
TESTS = ("tests/activations/test_checkpoint.py::test_exact_with_a_block_used_several_times",)
