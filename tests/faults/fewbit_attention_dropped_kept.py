"""A deliberate fault; README.md says how it is read."""

PROMISE = "attention keeps its probabilities once"
SOURCE = "shoestring/activations/fewbit/softmax.py"
OLD = "ctx.save_for_backward(chances, packed, value)"
NEW = "ctx.save_for_backward(chances, packed, value, dropped)"
TESTS = ("tests/activations/fewbit/test_softmax.py::test_what_is_kept",)
