"""A deliberate fault; README.md says how it is read."""

PROMISE = "estimates of parts are averaged"
SOURCE = "shoestring/zeroth/found.py"
OLD = "tuple(total / weight for total in sums)"
NEW = "tuple(total for total in sums)"
TESTS = ("tests/zeroth/test_engine.py::test_several_estimates_are_one_step_on_their_mean",)
