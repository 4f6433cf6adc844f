"""A deliberate fault; README.md says how it is read."""

PROMISE = "calls of another thread are not taken for those of this one"
SOURCE = "shoestring/measure/tracing/places.py"
OLD = "            if self._traced():\n                path"
NEW = "            if module is not None:\n                path"
TESTS = ("tests/measure/test_count.py::test_what_another_thread_calls_meanwhile_changes_no_place",)
