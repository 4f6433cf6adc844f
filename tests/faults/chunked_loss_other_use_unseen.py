"""A deliberate fault; README.md says how it is read."""

PROMISE = "a step that uses the logits beside the loss is refused"
SOURCE = "shoestring/activations/loss_sites.py"
OLD = "elif op.writes or index in makes:"
NEW = "elif op.writes:"
TESTS = ("tests/activations/test_chunked_loss.py::test_steps_without_such_a_loss_are_refused",)
