"""A deliberate fault; README.md says how it is read."""

PROMISE = "a view shares the storage of its base, and is not counted twice"
SOURCE = "shoestring/measure/tracing/storages.py"
OLD = "        address = storage_address(tensor)\n        index"
NEW = "        address = hash((storage_address(tensor), tuple(tensor.shape)))\n        index"
TESTS = ("tests/measure/test_tracer.py::test_the_peak_is_the_allocator_s[tied-sgd-{}]",)
