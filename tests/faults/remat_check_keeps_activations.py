"""A deliberate fault; README.md says how it is read."""

PROMISE = "the forward of a self-check keeps nothing for a backward"
SOURCE = "shoestring/activations/remat/check_calls.py"
OLD = "with saved_tensors_hooks(_dropped, _missing):"
NEW = "with torch.enable_grad():"
TESTS = ("tests/activations/remat/test_check.py::test_the_forward_keeps_nothing_for_a_backward",)
