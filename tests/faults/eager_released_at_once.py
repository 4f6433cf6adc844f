"""A deliberate fault; README.md says how it is read."""

PROMISE = "a value is released when the step itself lets go of it"
SOURCE = "shoestring/measure/tracing/storages.py"
OLD = "            live.released = self._now()"
NEW = "            live.released = live.birth"
TESTS = ("tests/measure/test_saved.py::test_a_temporary_is_released_once_the_forward_has_left_it",)
