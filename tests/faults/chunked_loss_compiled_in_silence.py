"""A deliberate fault; README.md says how it is read."""

PROMISE = "a chunked loss that the compiler undoes is warned of"
SOURCE = "shoestring/activations/deferred_logits.py"
OLD = "        defers = _deferring_compiled()\n"
NEW = "        defers = False\n"
TESTS = ("tests/activations/test_chunked_loss.py::test_a_compiled_model_is_right",)
