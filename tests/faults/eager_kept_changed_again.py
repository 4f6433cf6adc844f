"""A deliberate fault; README.md says how it is read."""

PROMISE = "a change of several tensors does not run again where one is kept"
SOURCE = "shoestring/activations/remat/eager/tape.py"
OLD = "        if None in values or known.name"
NEW = "        if known.name"
TESTS = (
    "tests/activations/remat/eager/test_traps.py::test_whatever_a_forward_does_no_bit_changes",
)
