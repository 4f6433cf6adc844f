"""A deliberate fault; README.md says how it is read."""

PROMISE = "a subspace lasts for an interval"
SOURCE = "shoestring/zeroth/subspace_muon.py"
OLD = 'basis = (draw // group["interval"], k)'
NEW = "basis = (draw, k)"
TESTS = ("tests/zeroth/test_subspace_muon.py::test_the_subspace_is_orthonormal_and_lasts",)
