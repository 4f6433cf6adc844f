"""A deliberate fault; README.md says how it is read."""

PROMISE = "an answer is no worse than what it started from"
SOURCE = "shoestring/activations/remat/solvers/hilp.py"
OLD = "if self.best is None or self._rank(lives) < self._rank(self.best):"
NEW = "if self.best is None or lives.seconds > self.best.seconds:"
TESTS = (
    "tests/activations/remat/test_hilp.py::test_answers_are_within_the_budget_and_no_worse_than_their_start",
)
