"""A deliberate fault; README.md says how it is read."""

PROMISE = "a gradient is taken when its parameter is not read again"
SOURCE = "shoestring/activations/remat/capture/pieces.py"
OLD = "(*keys, *parameters.get(source, ()))"
NEW = "keys"
TESTS = (
    "tests/activations/remat/test_pieces.py::test_a_parameter_that_is_still_read_is_not_stepped",
)
