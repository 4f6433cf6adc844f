"""A deliberate fault; README.md says how it is read."""

PROMISE = "a view shares the storage of its base, and is not counted twice"
SOURCE = "shoestring/measure/tracer.py"
OLD = "        address = storage_address(tensor)\n        index"
NEW = "        address = id(tensor)\n        index"
TESTS = ("tests/measure/test_tracer.py::test_storages_are_named_by_what_they_hold",)
