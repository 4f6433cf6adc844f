"""A deliberate fault; README.md says how it is read."""

PROMISE = "Haar matrices are distributed as polar factors"
SOURCE = "shoestring/kernels/semiorthogonal.py"
OLD = "q * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)"
NEW = "q"
TESTS = (
    "tests/kernels/test_semiorthogonal.py::test_haar_is_distributed_as_the_polar_factor_of_gaussians",
)
