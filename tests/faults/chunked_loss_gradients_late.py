"""A deliberate fault; README.md says how it is read."""

PROMISE = "the prediction counts the head's gradients from the first chunk on"
SOURCE = "shoestring/activations/loss_rewrite.py"
OLD = "        self._grow_gradients(first)\n"
NEW = ""
TESTS = (
    "tests/activations/test_chunked_loss.py::"
    "test_the_prediction_is_what_the_changed_step_takes[llama alone]",
)
