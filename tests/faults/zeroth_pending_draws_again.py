"""A deliberate fault; README.md says how it is read."""

PROMISE = "staying perturbed changes no bits"
SOURCE = "shoestring/zeroth/engine.py"
OLD = "ahead = Place(following, 0, 1)"
NEW = "ahead = Place(following, 0, -1)"
TESTS = ("tests/zeroth/test_engine.py::test_pending_gives_the_same_bits",)
