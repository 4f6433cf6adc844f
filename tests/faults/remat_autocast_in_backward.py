"""A deliberate fault; README.md says how it is read."""

PROMISE = "autocast in backward alone does what it does without a compiler"
SOURCE = "shoestring/activations/remat/capture/pieces.py"
OLD = "with as_compiled(without_autocast=self._without_autocast):"
NEW = "with as_compiled(without_autocast=True):"
TESTS = (
    "tests/activations/remat/test_calls.py::test_a_backward_alone_under_autocast_is_the_plain_one",
)
