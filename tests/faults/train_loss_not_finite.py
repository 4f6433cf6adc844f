"""A deliberate fault; README.md says how it is read."""

PROMISE = "a loss that is not finite stops the training"
SOURCE = "shoestring/integrations/transformers.py"
OLD = "if torch.is_grad_enabled() and not bool(torch.isfinite(loss)):"
NEW = "if torch.is_grad_enabled() and float(loss) == float('inf'):"
TESTS = (
    "tests/integrations/test_planned_trainer.py::test_a_loss_that_is_no_number_stops_before_a_checkpoint",
)
