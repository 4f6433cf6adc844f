"""A deliberate fault; README.md says how it is read."""

PROMISE = "what the loss takes outside of the model counts"
SOURCE = "shoestring/activations/remat/fitting.py"
OLD = "outside=outside, knows_largest"
NEW = "outside=0, knows_largest"
TESTS = ("tests/activations/remat/test_fit.py::test_a_loss_outside_of_the_model_counts",)
