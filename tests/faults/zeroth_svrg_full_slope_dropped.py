"""A deliberate fault; README.md says how it is read."""

PROMISE = "every step takes the slope over all data, too"
SOURCE = "shoestring/zeroth/svrg.py"
OLD = "            moves.append(Move(directions, scales))\n"
NEW = ""
TESTS = ("tests/zeroth/test_svrg.py::test_steps_are_those_of_the_oracle",)
