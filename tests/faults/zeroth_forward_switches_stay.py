"""A deliberate fault; README.md says how it is read."""

PROMISE = "torch's switches stand as before"
SOURCE = "shoestring/zeroth/forward_gradient.py"
OLD = "        torch.backends.mha.set_fastpath_enabled(fast)\n"
NEW = "        pass\n"
TESTS = ("tests/zeroth/test_forward_gradient.py::test_the_switches_of_torch_stand_as_before",)
