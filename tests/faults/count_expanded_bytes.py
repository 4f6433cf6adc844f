"""A deliberate fault; README.md says how it is read."""

PROMISE = "a dimension that is only expanded is not read again"
SOURCE = "shoestring/measure/tracing/traffic.py"
OLD = "    return sum(min(size, sizes[index]) for index, size in sums.items())"
NEW = "    return sum(sums.values())"
TESTS = ("tests/measure/test_traffic.py::test_an_expanded_dimension_is_not_read_again",)
