"""A deliberate fault; README.md says how it is read."""

PROMISE = "a gradient used in backward is freed at once"
SOURCE = "shoestring/optim/released.py"
OLD = """            self.update(param, group)
        param.grad = TakenGradient(param)
"""
NEW = """            self.update(param, group)
"""
TESTS = (
    "tests/optim/test_step.py::test_gradients_are_gone_after_backward",
    "tests/optim/test_prediction.py::test_predicted_equals_measured[adamw-release-gradients]",
)
