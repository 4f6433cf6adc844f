"""A deliberate fault; README.md says how it is read."""

PROMISE = "a front's bounds hold"
SOURCE = "shoestring/activations/remat/front_search.py"
OLD = "_searched(best, swept, candidate.peak, share)"
NEW = "_searched(best, swept, 9 * candidate.peak // 10, share)"
TESTS = ("tests/activations/remat/test_pareto.py::test_its_bounds_are_those_of_its_budgets",)
