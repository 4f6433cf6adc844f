"""A deliberate fault; README.md says how it is read."""

PROMISE = "a worker without samples says nothing"
SOURCE = "shoestring/zeroth/found.py"
OLD = "[part for part in found if part.weight] or found[:1]"
NEW = "list(found)"
TESTS = (
    "tests/zeroth/test_workers.py::test_all_workers_have_the_bits_of_one_that_asks_for_all_shards",
)
