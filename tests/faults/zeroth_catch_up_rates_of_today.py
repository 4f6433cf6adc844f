"""A deliberate fault; README.md says how it is read."""

PROMISE = "steps are made again with the rates they were made with"
SOURCE = "shoestring/zeroth/catch_up.py"
OLD = "optimizer.repeat(log.deltas[step], log.settings[step])"
NEW = "optimizer.repeat(log.deltas[step], log.settings[-1])"
TESTS = ("tests/zeroth/test_catch_up.py::test_a_scheduler_is_stepped_as_often_as_steps_were_made",)
