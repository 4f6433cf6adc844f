"""A deliberate fault; README.md says how it is read."""

PROMISE = "a sparsity of 0.9 leaves a tenth of the weights"
SOURCE = "shoestring/zeroth/sparse.py"
OLD = 'round((1 - group["sparsity"]) * parameter.numel())'
NEW = 'round(group["sparsity"] * parameter.numel())'
TESTS = ("tests/zeroth/test_sparse.py::test_a_tenth_is_a_tenth",)
