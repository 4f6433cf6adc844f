"""A deliberate fault; README.md says how it is read."""

PROMISE = "parts of a batch count by their loss terms"
SOURCE = "shoestring/integrations/zeroth.py"
OLD = "self._zeroth.estimate(ask, weight=terms)"
NEW = "self._zeroth.estimate(ask)"
TESTS = (
    "tests/integrations/test_zeroth_trainer.py::test_parts_of_a_batch_count_by_their_loss_terms",
)
