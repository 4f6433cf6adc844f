"""A deliberate fault; README.md says how it is read."""

PROMISE = "the sliced step makes no temporary larger than a slice"
SOURCE = "shoestring/optim/sliced.py"
OLD = "yield from slices(tensors, slice_elements(tensors[0].device.type))"
NEW = "yield tensors"
TESTS = ("tests/optim/test_step.py::test_no_temporary_is_larger_than_a_slice",)
