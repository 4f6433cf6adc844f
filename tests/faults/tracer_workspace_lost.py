"""A deliberate fault; README.md says how it is read."""

PROMISE = "what a kernel holds beside its outputs is part of the peak"
SOURCE = "shoestring/measure/tracing/tracer.py"
OLD = "if space is not None:\n"
NEW = "if space is not None and False:\n"
TESTS = ("tests/measure/test_tracer.py::test_the_peak_is_the_allocator_s[recurrent-sgd-{}]",)
