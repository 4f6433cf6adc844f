"""A deliberate fault; README.md says how it is read."""

PROMISE = "every chunk adds to the gradient of the weight once"
SOURCE = "shoestring/activations/chunked_cross_entropy.py"
OLD = "self.weight.addmm_(slope.t(), rows)"
NEW = "self.weight.addmm_(slope.t(), rows).addmm_(slope.t(), rows)"
TESTS = ("tests/activations/test_chunked_loss.py::test_models_train_as_without_it",)
