"""A deliberate fault; README.md says how it is read."""

PROMISE = "the dynamic order stays within its budget where a node makes two values"
SOURCE = "shoestring/activations/remat/solvers/dtr.py"
OLD = "scores[list(self._graph.nodes[index].makes)] = np.inf  # it would be made again"
NEW = "pass"
TESTS = (
    "tests/activations/remat/test_dtr.py::test_what_the_running_node_makes_is_not_evicted_for_it",
)
