"""A deliberate fault; README.md says how it is read."""

PROMISE = "only the steps that are missing are made"
SOURCE = "shoestring/zeroth/catch_up.py"
OLD = "range(reached - log.start, len(log))"
NEW = "range(len(log))"
TESTS = ("tests/zeroth/test_catch_up.py::test_from_a_checkpoint_to_the_bits_of_the_others",)
