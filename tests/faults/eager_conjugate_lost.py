"""A deliberate fault; README.md says how it is read."""

PROMISE = "a conjugate view is made again as one"
SOURCE = "shoestring/activations/remat/eager/tape.py"
OLD = "        return _turned(tensor, self.conjugate, self.negative)"
NEW = "        return _turned(tensor, False, self.negative)"
TESTS = (
    "tests/activations/remat/eager/test_traps.py::test_whatever_a_forward_does_no_bit_changes",
)
