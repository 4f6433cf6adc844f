"""A deliberate fault; README.md says how it is read."""

PROMISE = "the optimizer's state is in the predicted peak"
SOURCE = "shoestring/planner/zeroth.py"
OLD = "((self.state, Kind.OPTIMIZER), (self.held, Kind.TEMPORARY))"
NEW = "((self.held, Kind.TEMPORARY),)"
TESTS = ("tests/planner/test_zeroth.py::test_the_predicted_peak_holds",)
