"""A deliberate fault; README.md says how it is read."""

PROMISE = "a second gradient in one step is noticed, not applied"
SOURCE = "shoestring/optim/released.py"
OLD = """            param.grad = None  # so that step() can go on from the parameters as they are
            self._refuse("a parameter got a second gradient in one step")
"""
NEW = """            pass
"""
TESTS = (
    "tests/optim/test_step.py::test_a_second_gradient_in_one_step_is_noticed",
    "tests/optim/test_step.py::test_a_closure_with_two_backwards_is_noticed",
)
