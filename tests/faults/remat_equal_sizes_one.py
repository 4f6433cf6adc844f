"""A deliberate fault; README.md says how it is read."""

PROMISE = "a batch whose sizes happen to be equal takes no graph of its own"
SOURCE = "shoestring/activations/remat/capture/_torch.py"
OLD = "patch(use_duck_shape=False)"
NEW = "patch(use_duck_shape=True)"
TESTS = ("tests/activations/remat/test_shapes.py::test_batches_of_other_sizes_take_three_captures",)
