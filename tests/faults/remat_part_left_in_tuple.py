"""A deliberate fault; README.md says how it is read."""

PROMISE = "a part of a tuple is taken out at once, so that the others are freed"
SOURCE = "shoestring/activations/remat/capture/emission.py"
OLD = "if self._is_part(part, node):"
NEW = "if self._is_part(part, node) and part.users and len(node.users) < 2:"
TESTS = ("tests/activations/remat/test_emission.py::test_the_simulated_peak_is_the_allocators",)
