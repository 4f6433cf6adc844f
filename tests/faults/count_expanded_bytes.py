"""A deliberate fault; README.md says how it is read."""

PROMISE = "a dimension that is only expanded is not read again"
SOURCE = "shoestring/measure/tracing/traffic.py"
OLD = "                second.numel() * second.element_size(), sizes[other]"
NEW = "                second.numel() * second.element_size(), 2**62"
TESTS = ("tests/measure/test_traffic.py::test_an_expanded_dimension_is_not_read_again",)
