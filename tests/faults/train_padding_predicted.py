"""A deliberate fault; README.md says how it is read."""

PROMISE = "padding is not learnt"
SOURCE = "shoestring/integrations/text_batches.py"
OLD = 'batch["labels"] = self._padded(ids, length, IGNORED)'
NEW = 'batch["labels"] = self._padded(ids, length, self.pad_id)'
TESTS = (
    "tests/integrations/test_text_batches.py::test_batches_are_what_the_obvious_version_makes",
)
