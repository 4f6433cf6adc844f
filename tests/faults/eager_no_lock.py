"""A deliberate fault; README.md says how it is read."""

PROMISE = "several threads go back through one forward"
SOURCE = "shoestring/activations/remat/eager/tape.py"
OLD = "with kept.value.lock, as_recorded()"
NEW = "with as_recorded()"
TESTS = (
    "tests/activations/remat/eager/test_models.py::test_two_backwards_at_once_through_one_forward",
)
