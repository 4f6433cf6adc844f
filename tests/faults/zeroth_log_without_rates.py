"""A deliberate fault; README.md says how it is read."""

PROMISE = "a replay follows the schedule of the run"
SOURCE = "shoestring/zeroth/engine.py"
OLD = "group.update(zip(names, settings[k * len(names) :], strict=False))"
NEW = "pass"
TESTS = ("tests/zeroth/test_log.py::test_a_replay_has_the_bits_of_the_run",)
