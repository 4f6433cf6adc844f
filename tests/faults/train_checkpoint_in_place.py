"""A deliberate fault; README.md says how it is read."""

PROMISE = "a checkpoint gets its name when it is whole"
SOURCE = "shoestring/integrations/checkpoints.py"
OLD = "    fresh = staging / target.name\n"
NEW = "    fresh = staging / target.name\n    target.mkdir(exist_ok=True)\n"
TESTS = ("tests/integrations/test_checkpoints.py::test_a_full_disk_is_said_and_leaves_nothing",)
