"""A deliberate fault; README.md says how it is read."""

PROMISE = "a function may write over the elements that are encoded"
SOURCE = "shoestring/kernels/codes.py"
OLD = """            codes_native.shared(loop, part, begin // BLOCK)  # first: out may be x
            made = function(part, out=place)
"""
NEW = """            made = function(part, out=place)
            codes_native.shared(loop, part, begin // BLOCK)
"""
TESTS = ("tests/kernels/test_codes_order.py::test_in_place_is_the_same",)
