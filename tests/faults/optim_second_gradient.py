"""A deliberate fault; README.md says how it is read."""

PROMISE = "a second gradient in one step is noticed, not applied"
SOURCE = "shoestring/optim/released.py"
OLD = """        param.grad = TakenGradient(param)
        self._consumed()[param] = None
"""
NEW = """        param.grad = None
"""
TESTS = (
    "tests/optim/test_step.py::test_a_second_gradient_in_one_step_is_noticed",
    "tests/optim/test_step.py::test_a_closure_with_two_backwards_is_noticed",
)
