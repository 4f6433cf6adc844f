"""A deliberate fault; README.md says how it is read."""

PROMISE = "entries of a Hadamard direction are uncorrelated"
SOURCE = "shoestring/kernels/hadamard_signs.py"
OLD = "self._down = signs(stream_key(key, 0), len(rows))"
NEW = "self._down = torch.ones(len(rows))"
TESTS = ("tests/kernels/test_semiorthogonal.py::test_entries_are_uncorrelated_and_of_equal_size",)
