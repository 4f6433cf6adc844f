"""A deliberate fault; README.md says how it is read."""

PROMISE = "counting leaves no hook behind"
SOURCE = "shoestring/measure/tracing/places.py"
OLD = "            for handle in handles:\n                handle.remove()\n            self._stack"
NEW = "            self._stack"
TESTS = ("tests/measure/test_count.py::test_the_model_stays_as_it_is",)
