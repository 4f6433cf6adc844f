"""A deliberate fault; README.md says how it is read."""

PROMISE = "a checkpointed block's input lives until its backward ends"
SOURCE = "shoestring/activations/_recompute.py"
OLD = "holds[s] = max(holds.get(s, 0), region.last)"
NEW = "holds.pop(s, 0)"
TESTS = (
    "tests/activations/test_checkpoint.py::test_what_goes_into_a_block_lives_until_it_runs_again",
)
