"""A deliberate fault; README.md says how it is read."""

PROMISE = "what stays at the end is counted to the end"
SOURCE = "shoestring/activations/remat/solvers/lives.py"
OLD = "keys = np.sort(np.concatenate([keys, stay]))"
NEW = "keys = np.sort(keys)"
TESTS = ("tests/activations/remat/test_hilp_mend.py::test_results_stay_to_the_end",)
