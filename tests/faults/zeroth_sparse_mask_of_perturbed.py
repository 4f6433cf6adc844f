"""A deliberate fault; README.md says how it is read."""

PROMISE = "a mask is of the weights' own values, and one for all of a step"
SOURCE = "shoestring/zeroth/sparse.py"
OLD = 'if int(state["since"]) != since:'
NEW = "if True:"
TESTS = ("tests/zeroth/test_sparse.py::test_the_mask_is_of_the_weights_and_not_of_perturbed_ones",)
