"""A deliberate fault; README.md says how it is read."""

PROMISE = "judging leaves the global generators where they stood"
SOURCE = "shoestring/zeroth/conservative.py"
OLD = "    with torch.random.fork_rng(devices=cuda):\n        yield\n"
NEW = "    yield\n"
TESTS = ("tests/zeroth/test_conservative.py::test_all_evaluations_meet_the_same_random_numbers",)
