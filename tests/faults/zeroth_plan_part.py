"""A deliberate fault; README.md says how it is read."""

PROMISE = "what a large parameter's move takes is told from a part of it"
SOURCE = "shoestring/planner/zeroth.py"
OLD = "    scale = count / part.numel()"
NEW = "    scale = 1.0"
TESTS = ("tests/planner/test_zeroth.py::test_the_moves_can_bind",)
