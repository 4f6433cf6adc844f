"""A deliberate fault; README.md says how it is read."""

PROMISE = "small updates of weights of few bits are not lost"
SOURCE = "shoestring/zeroth/moves.py"
OLD = "if rounding is not None:\n        update"
NEW = "if rounding == -1:\n        update"
TESTS = ("tests/zeroth/test_lozo.py::test_updates_of_few_bits_are_right_in_the_mean",)
