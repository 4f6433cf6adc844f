"""A deliberate fault; README.md says how it is read."""

PROMISE = "a checkpoint that is not whole is not gone on from"
SOURCE = "shoestring/integrations/checkpoints.py"
OLD = '            return f"{name} has another size"\n'
NEW = "            continue\n"
TESTS = ("tests/integrations/test_checkpoints.py::test_one_that_stands_is_not_written_again",)
