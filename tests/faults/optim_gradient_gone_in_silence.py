"""A deliberate fault; README.md says how it is read."""

PROMISE = "what needs gradients after they were used in backward raises"
SOURCE = "shoestring/optim/released.py"
OLD = "        param.grad = TakenGradient(param)\n"
NEW = "        param.grad = None\n"
TESTS = ("tests/optim/test_step.py::test_what_needs_gradients_after_backward_raises",)
