"""A deliberate fault; README.md says how it is read."""

PROMISE = "an edited trace is renumbered throughout"
SOURCE = "shoestring/core/edit.py"
OLD = "source = place[source][0] if self._ops[source] is not None else -1"
NEW = "source = source if self._ops[source] is not None else -1"
TESTS = ("tests/core/test_edit.py::test_an_insertion_moves_what_comes_after",)
