"""A deliberate fault; README.md says how it is read."""

PROMISE = "a gradient is brought to the order in which the codes were found"
SOURCE = "shoestring/kernels/codes.py"
OLD = """    flat = _flat(grad, order)
    _packed(packed"""
NEW = """    flat = _flat(grad, None)
    _packed(packed"""
TESTS = (
    "tests/kernels/test_codes_order.py::"
    "test_values_and_gradients_in_every_layout[dtype0-channels last]",
)
