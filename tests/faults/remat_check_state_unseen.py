"""A deliberate fault; README.md says how it is read."""

PROMISE = "a self-check compares the random state after forward"
SOURCE = "shoestring/activations/remat/check.py"
OLD = """\
        found |= {f"random state after forward ({k})": t for k, t in _random_states().items()}
"""
NEW = ""
TESTS = (
    "tests/activations/remat/test_check.py::test_a_random_state_that_is_not_restored_is_found",
)
