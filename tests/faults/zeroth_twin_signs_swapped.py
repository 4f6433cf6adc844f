"""A deliberate fault; README.md says how it is read."""

PROMISE = "each place has its own sign in a product"
SOURCE = "shoestring/zeroth/twin/products.py"
OLD = "    seen = seen * places.sides(seen, 2)\n"
NEW = "    seen = seen * places.sides(seen, 2).abs()\n"
TESTS = ("tests/zeroth/test_twin.py::test_linear_layers",)
