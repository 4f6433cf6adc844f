"""A deliberate fault; README.md says how it is read."""

PROMISE = "a candidate that is not taken leaves no bit changed"
SOURCE = "shoestring/zeroth/conservative.py"
OLD = "                        tensor.copy_(value)\n"
NEW = "                        pass\n"
TESTS = ("tests/zeroth/test_conservative.py::test_parameters_that_stay_keep_their_bits",)
