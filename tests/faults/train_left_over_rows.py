"""A deliberate fault; README.md says how it is read."""

PROMISE = "every row is in a batch of an epoch"
SOURCE = "shoestring/integrations/text_batches.py"
OLD = "pool = left + [own[i]"
NEW = "pool = [own[i]"
TESTS = (
    "tests/integrations/test_text_batches.py::test_every_row_comes_once_in_batches_of_the_shapes_announced",
)
