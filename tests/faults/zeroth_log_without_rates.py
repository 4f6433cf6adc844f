"""A deliberate fault; README.md says how it is read."""

PROMISE = "a replay follows the schedule of the run"
SOURCE = "shoestring/zeroth/engine.py"
OLD = "set_options(group, names, settings[k * len(names) :])"
NEW = "set_options(group, names[1:], settings[k * len(names) + 1 :])"
TESTS = ("tests/zeroth/test_log.py::test_a_replay_has_the_bits_of_the_run",)
