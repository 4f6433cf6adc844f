"""A deliberate fault; README.md says how it is read."""

PROMISE = "a tensor that is more than a layout is kept"
SOURCE = "shoestring/activations/remat/eager/tape.py"
OLD = " and all(map(_is_plain, bases)):"
NEW = ":"
TESTS = (
    "tests/activations/remat/eager/test_traps.py::test_whatever_a_forward_does_no_bit_changes",
)
