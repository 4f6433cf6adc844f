"""A deliberate fault; README.md says how it is read."""

PROMISE = "what the loss takes of a larger batch counts"
SOURCE = "shoestring/activations/remat/fit_forward.py"
OLD = "            with backend.growing(outside):"
NEW = "            with backend.growing(0):"
TESTS = (
    "tests/activations/remat/test_shapes.py::test_a_larger_batch_is_scheduled_anew_within_the_same_bytes_or_refused",
)
