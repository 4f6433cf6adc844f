"""A deliberate fault; README.md says how it is read."""

PROMISE = "when torch captures no more, the error says what to do"
SOURCE = "shoestring/activations/remat/fit_forward.py"
OLD = "    if isinstance(error, FailOnRecompileLimitHit):"
NEW = "    if False:"
TESTS = (
    "tests/activations/remat/test_shapes.py::test_when_torch_captures_no_more_the_step_is_refused",
)
