"""A deliberate fault; README.md says how it is read."""

PROMISE = "a worker without samples says nothing"
SOURCE = "shoestring/zeroth/workers.py"
OLD = "return [part for part in parts if part.weight] or parts"
NEW = "return parts"
TESTS = (
    "tests/zeroth/test_workers.py::test_all_workers_have_the_bits_of_one_that_asks_for_all_shards",
)
