"""A deliberate fault; README.md says how it is read."""

PROMISE = "a candidate without a finite loss is not taken"
SOURCE = "shoestring/zeroth/conservative.py"
OLD = "    if not math.isfinite(there):\n        return math.inf\n"
NEW = "    if not math.isfinite(there):\n        return -math.inf\n"
TESTS = ("tests/zeroth/test_conservative.py::test_candidates_without_a_finite_loss_are_not_taken",)
