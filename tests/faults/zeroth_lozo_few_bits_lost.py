"""A deliberate fault; README.md says how it is read."""

PROMISE = "small updates of weights of few bits are not lost"
SOURCE = "shoestring/zeroth/lozo.py"
OLD = ' or any(p.dtype is not wide(p.dtype) for p in group["params"])'
NEW = ""
TESTS = ("tests/zeroth/test_lozo.py::test_updates_of_few_bits_are_right_in_the_mean",)
