"""A deliberate fault; README.md says how it is read."""

PROMISE = "a tied parameter carries its tangent, too"
SOURCE = "shoestring/zeroth/forward_gradient.py"
OLD = "if parameter.requires_grad else None"
NEW = "if self.state.get(parameter) else None"
TESTS = ("tests/zeroth/test_forward_gradient.py::test_frozen_tied_numbers_and_empty_parameters",)
