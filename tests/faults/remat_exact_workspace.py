"""A deliberate fault; README.md says how it is read."""

PROMISE = "the exact program counts workspaces"
SOURCE = "shoestring/activations/remat/solvers/checkmate.py"
OLD = "graph.nodes[node].workspace / self.unit.size"
NEW = "0.0"
TESTS = ("tests/activations/remat/test_checkmate.py::test_equals_a_search_at_every_budget",)
