"""A deliberate fault; README.md says how it is read."""

PROMISE = "counting finds the least seconds within the bytes"
SOURCE = "shoestring/activations/remat/solvers/closure_counts.py"
OLD = "kept = kept[np.lexsort((cost[kept], own[kept]))]"
NEW = "kept = kept[np.lexsort((own[kept], cost[kept]))][:2]"
TESTS = ("tests/activations/remat/test_closure_counts.py::test_equals_trying_every_choice",)
