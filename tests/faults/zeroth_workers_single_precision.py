"""A deliberate fault; README.md says how it is read."""

PROMISE = "slopes are sent in float64"
SOURCE = "shoestring/zeroth/workers.py"
OLD = "sent = numbers.to(self._device)"
NEW = "sent = numbers.float().to(numbers.dtype)"
TESTS = (
    "tests/zeroth/test_workers.py::test_all_workers_have_the_bits_of_one_that_asks_for_all_shards",
)
