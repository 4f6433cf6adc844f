"""A deliberate fault; README.md says how it is read."""

PROMISE = "every parameter that a function is given is moved, those in lists too"
SOURCE = "shoestring/zeroth/twin/functions.py"
OLD = "        return [_each(one, change) for one in value]\n"
NEW = "        return value\n"
TESTS = ("tests/zeroth/test_scratch.py::test_models_of_the_zoo[rademacher-lstm]",)
