"""A deliberate fault; README.md says how it is read."""

PROMISE = "MiB is 2**20 bytes, not 10**6"
SOURCE = "shoestring/core/units.py"
OLD = '"mib": 2**20'
NEW = '"mib": 10**6'
TESTS = (
    "tests/core/test_units.py::test_sizes",
    "tests/core/test_units.py::test_a_size_is_its_number_times_its_unit",
    "tests/core/test_units.py::test_a_written_size_reads_back_within_its_three_digits",
)
