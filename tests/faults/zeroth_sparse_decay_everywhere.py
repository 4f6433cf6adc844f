"""A deliberate fault; README.md says how it is read."""

PROMISE = "what is not masked keeps its bits"
SOURCE = "shoestring/zeroth/sparse.py"
OLD = "part[places] = taken\n\n        in_parts(parameter"
NEW = "part.mul_(decay)[places] = taken\n\n        in_parts(parameter"
TESTS = ("tests/zeroth/test_sparse.py::test_what_is_not_masked_keeps_its_bits",)
