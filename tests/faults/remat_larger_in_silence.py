"""A deliberate fault; README.md says how it is read."""

PROMISE = "a larger batch than the fitted one is warned of"
SOURCE = "shoestring/activations/remat/fit_forward.py"
OLD = "        warnings.warn(_LARGER, AssumptionWarning, stacklevel=4)\n"
NEW = ""
TESTS = (
    "tests/activations/remat/test_shapes.py::test_a_larger_batch_is_scheduled_anew_within_the_same_bytes_or_refused",
)
