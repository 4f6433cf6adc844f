"""A deliberate fault; README.md says how it is read."""

PROMISE = "forward passes are counted as the optimizer makes them"
SOURCE = "shoestring/planner/zeroth.py"
OLD = "evaluations=step.evaluations * estimates"
NEW = "evaluations=2 * estimates"
TESTS = ("tests/planner/test_zeroth.py::test_evaluations_are_counted_by_running_the_optimizer",)
