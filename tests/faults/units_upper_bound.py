"""A deliberate fault; README.md says how it is read."""

PROMISE = "a size above 1 EiB is refused"
SOURCE = "shoestring/core/units.py"
OLD = "if not 1 <= size <= _MOST_BYTES:"
NEW = "if not 1 <= size:"
TESTS = (
    "tests/core/test_units.py::test_sizes_of_other_types_or_out_of_range_are_refused",
    "tests/core/test_units.py::test_what_is_no_size_is_refused",
)
