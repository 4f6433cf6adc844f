"""A deliberate fault; README.md says how it is read."""

PROMISE = "a size that is no input's is fixed for its graph"
SOURCE = "shoestring/activations/remat/capture/sizes.py"
OLD = "int(value) if found is None else found"
NEW = "hint if found is None else found"
TESTS = (
    "tests/activations/remat/test_shapes.py::test_a_size_that_is_no_input_s_is_captured_for_each_value",
)
