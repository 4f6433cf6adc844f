"""A deliberate fault; README.md says how it is read."""

PROMISE = "gradients stay from one micro-batch to the next"
SOURCE = "shoestring/activations/micro_batches.py"
OLD = "Kind.GRADIENT, ALWAYS, death, fresh.module"
NEW = "Kind.GRADIENT, accumulated, death, fresh.module"
TESTS = ("tests/activations/test_micro_batches.py::test_gradients_stay_and_fresh_ones_go_at_once",)
