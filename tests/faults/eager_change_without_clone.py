"""A deliberate fault; README.md says how it is read."""

PROMISE = "a change runs again on a copy of what is needed as it was"
SOURCE = "shoestring/activations/remat/eager/tape.py"
OLD = "        return bool(facts(self.func).changes) and value.readers > 1"
NEW = "        return False"
TESTS = (
    "tests/activations/remat/eager/test_traps.py::test_whatever_a_forward_does_no_bit_changes",
)
