"""A deliberate fault; README.md says how it is read."""

PROMISE = "sizes are rounded up to slots, so that what fits the slots fits the bytes"
SOURCE = "shoestring/activations/remat/solvers/rotor.py"
OLD = "        return -(-size // self._unit)"
NEW = "        return size // self._unit"
TESTS = ("tests/activations/remat/test_rotor.py::test_rounding_is_safe",)
