"""A deliberate fault; README.md says how it is read."""

PROMISE = "a step within a subspace has singular values of the learning rate"
SOURCE = "shoestring/zeroth/subspace_muon.py"
OLD = 'polar(total, method=group["method"])'
NEW = "total"
TESTS = (
    "tests/zeroth/test_subspace_muon.py::test_a_step_has_singular_values_of_the_learning_rate",
)
