"""A deliberate fault; README.md says how it is read."""

PROMISE = "a matrix that is used transposed is moved along the same direction, transposed"
SOURCE = "shoestring/zeroth/twin/products.py"
OLD = "        weight, turned = whole, not turned\n"
NEW = "        weight = whole\n"
TESTS = ("tests/zeroth/test_twin.py::test_functions[rank1-turned twice]",)
