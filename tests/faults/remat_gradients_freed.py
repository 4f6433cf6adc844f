"""A deliberate fault; README.md says how it is read."""

PROMISE = "gradients stay in memory until the step has ended"
SOURCE = "shoestring/activations/remat/simulate.py"
OLD = "    needed = set(graph.results)"
NEW = "    needed: set[int] = set()"
TESTS = ("tests/activations/remat/test_simulate.py::test_equals_the_list_of_live_copies",)
