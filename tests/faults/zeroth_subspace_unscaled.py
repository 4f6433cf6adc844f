"""A deliberate fault; README.md says how it is read."""

PROMISE = "a weight is moved by about eps whatever the rank of the subspace"
SOURCE = "shoestring/zeroth/subspace_muon.py"
OLD = "self.spanning.to(matrix) * math.sqrt(matrix.size(0))"
NEW = "self.spanning.to(matrix)"
TESTS = (
    "tests/zeroth/test_subspace_muon.py::test_over_all_subspaces_the_directions_have_the_identity",
)
