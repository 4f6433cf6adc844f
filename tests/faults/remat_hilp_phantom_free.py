"""A deliberate fault; README.md says how it is read."""

PROMISE = "what a cluster keeps inside takes the memory that it takes"
SOURCE = "shoestring/activations/remat/solvers/hilp_top.py"
OLD = "self._sizes.append(self.graph.sizes(kept))"
NEW = "self._sizes.append(0)"
TESTS = (
    "tests/activations/remat/test_hilp.py::test_runs_become_orders_within_the_bytes_that_the_program_counts",
)
