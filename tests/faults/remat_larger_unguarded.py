"""A deliberate fault; README.md says how it is read."""

PROMISE = "a batch larger than the fitted one is captured anew"
SOURCE = "shoestring/activations/remat/capture/sizes.py"
OLD = "                if size > bound:  #"
NEW = "                if False:  #"
TESTS = (
    "tests/activations/remat/test_backends.py::test_a_larger_batch_is_scheduled_for_itself",
    "tests/activations/remat/test_shapes.py::test_a_larger_batch_is_scheduled_anew_within_the_same_bytes_or_refused",
)
