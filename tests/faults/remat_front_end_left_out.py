"""A deliberate fault; README.md says how it is read."""

PROMISE = "both ends of a front stay"
SOURCE = "shoestring/activations/remat/front_search.py"
OLD = "del left[1 + areas.index(min(areas))]"
NEW = "del left[2 + areas.index(min(areas))]"
TESTS = ("tests/activations/remat/test_pareto.py::test_both_ends_stay_however_few_are_asked_for",)
