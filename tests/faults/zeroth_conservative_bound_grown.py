"""A deliberate fault; README.md says how it is read."""

PROMISE = "what is judged and not taken leaves no trace in the next radius"
SOURCE = "shoestring/zeroth/conservative.py"
OLD = '                        state["largest"] = bound\n'
NEW = "                        pass\n"
TESTS = ("tests/zeroth/test_conservative.py::test_the_log_makes_the_steps_again",)
