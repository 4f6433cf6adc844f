"""A deliberate fault; README.md says how it is read."""

PROMISE = "noise that autograd took before it was drawn is kept"
SOURCE = "shoestring/activations/remat/eager/tape.py"
OLD = "                if value is not None and known.name in _NOISY:"
NEW = "                if value is None:"
TESTS = (
    "tests/activations/remat/eager/test_traps.py::test_whatever_a_forward_does_no_bit_changes",
)
