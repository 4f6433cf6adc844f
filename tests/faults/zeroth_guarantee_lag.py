"""A deliberate fault; README.md says how it is read."""

PROMISE = "the lag of coordinate momentum is d / p - 1"
SOURCE = "shoestring/zeroth/guarantees/jaguar.py"
OLD = "    lag = d / p - 1\n"
NEW = "    lag = d / p / 2 - 0.5\n"
TESTS = ("tests/zeroth/test_guarantees.py::test_the_lag_of_coordinate_momentum_is_the_one_proved",)
