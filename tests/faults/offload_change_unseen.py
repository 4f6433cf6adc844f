"""A deliberate fault; README.md says how it is read."""

PROMISE = "an in-place change of a saved tensor that stayed is an error"
SOURCE = "shoestring/activations/offload.py"
OLD = "if self._tensor._version != self._version:"
NEW = "if self._version < 0:"
TESTS = (
    "tests/activations/test_offload.py::test_a_change_in_place_of_what_stayed_is_still_an_error",
)
