"""A deliberate fault; README.md says how it is read."""

PROMISE = "sizes that happen to be equal are not taken for the same"
SOURCE = "shoestring/activations/remat/capture/_torch.py"
OLD = "patch(use_duck_shape=False)"
NEW = "patch(use_duck_shape=True)"
TESTS = ("tests/activations/remat/test_shapes.py::test_batches_of_other_sizes_take_three_captures",)
