"""A deliberate fault; README.md says how it is read."""

PROMISE = "a shard counts as many samples as it has"
SOURCE = "shoestring/zeroth/workers.py"
OLD = "message = torch.tensor([exact, found.weight, *deltas], dtype=torch.float64)"
NEW = "message = torch.tensor([exact, min(found.weight, 1), *deltas], dtype=torch.float64)"
TESTS = (
    "tests/zeroth/test_workers.py::test_all_workers_have_the_bits_of_one_that_asks_for_all_shards",
)
