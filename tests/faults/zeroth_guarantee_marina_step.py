"""A deliberate fault; README.md says how it is read."""

PROMISE = "no longer step than MARINA's will do"
SOURCE = "shoestring/zeroth/guarantees/marina.py"
OLD = "step = 1 / (problem.L * (1 + (1 + theta) * rounds.root))"
NEW = "step = 1 / (problem.L * (1 + (1 + theta) * rounds.root / 2))"
TESTS = (
    "tests/zeroth/test_guarantees.py::test_marina_reaches_its_bound_and_no_longer_step_would_do",
)
