"""A deliberate fault; README.md says how it is read."""

PROMISE = "a schedule is made for the largest batch, whatever is captured"
SOURCE = "shoestring/activations/remat/capture/sizes.py"
OLD = "            self._known[expression] = int(value) if found is None else found"
NEW = "            self._known[expression] = hint"
TESTS = ("tests/activations/remat/test_shapes.py::test_batches_of_other_sizes_take_three_captures",)
