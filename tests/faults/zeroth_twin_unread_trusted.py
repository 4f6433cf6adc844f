"""A deliberate fault; README.md says how it is read."""

PROMISE = "a parameter that is read through an older view is noticed"
SOURCE = "shoestring/zeroth/twin/watch.py"
OLD = "        if unseen and self._are_read(sorted(unseen), ask):\n"
NEW = "        if unseen and not ask:\n"
TESTS = (
    "tests/zeroth/test_twin.py::test_in_place_from_then_on[a view from before]",
    "tests/zeroth/test_scratch.py::test_in_place_from_then_on[a view from before]",
)
