"""A deliberate fault; README.md says how it is read."""

PROMISE = "evicted neighbours make a value dear to evict"
SOURCE = "shoestring/activations/remat/solvers/dtr.py"
OLD = "nodes = {self._graph.maker[value], *self._neighbours(value)[0]}"
NEW = "nodes = {self._graph.maker[value]}"
TESTS = ("tests/activations/remat/test_dtr.py::test_equals_the_recursion_on_longer_graphs",)
