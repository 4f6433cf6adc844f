"""A deliberate fault; README.md says how it is read."""

PROMISE = "a second derivative raises"
SOURCE = "shoestring/activations/remat/capture/pieces.py"
OLD = "    if torch.is_grad_enabled() and any("
NEW = "    if False and any("
TESTS = ("tests/activations/remat/test_pieces.py::test_a_second_derivative_is_refused",)
