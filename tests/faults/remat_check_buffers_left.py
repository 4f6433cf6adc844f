"""A deliberate fault; README.md says how it is read."""

PROMISE = "a self-check leaves buffers as they were"
SOURCE = "shoestring/activations/remat/check_state.py"
OLD = "tensor.detach().copy_(content)"
NEW = "pass"
TESTS = ("tests/activations/remat/test_check.py::test_everything_is_as_before",)
