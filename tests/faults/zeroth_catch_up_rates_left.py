"""A deliberate fault; README.md says how it is read."""

PROMISE = "catching up leaves the rates as they were"
SOURCE = "shoestring/zeroth/catch_up.py"
OLD = "            set_options(group, log.names, options)\n"
NEW = "            pass\n"
TESTS = ("tests/zeroth/test_catch_up.py::test_a_scheduler_is_stepped_as_often_as_steps_were_made",)
