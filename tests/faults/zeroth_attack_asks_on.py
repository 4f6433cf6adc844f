"""A deliberate fault; README.md says how it is read."""

PROMISE = "an image that succeeded is not asked for again"
SOURCE = "shoestring/zeroth/attacks/loop.py"
OLD = "going = found >= 0"
NEW = "going = found >= -0.1"
TESTS = ("tests/zeroth/attacks/test_attack.py::test_balls_counts_and_early_exit",)
