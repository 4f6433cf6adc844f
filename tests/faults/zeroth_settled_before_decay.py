"""A deliberate fault; README.md says how it is read."""

PROMISE = "weights that decay are settled after that, and not with the move before"
SOURCE = "shoestring/zeroth/moves.py"
OLD = "apart = settled == 0 or (decays and settled == between.before)"
NEW = "apart = settled == 0"
TESTS = ("tests/zeroth/test_moves.py::test_several_moves_are_one_after_the_other",)
