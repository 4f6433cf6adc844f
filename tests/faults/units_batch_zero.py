"""A deliberate fault; README.md says how it is read."""

PROMISE = "a batch with a size of zero is refused"
SOURCE = "shoestring/core/units.py"
OLD = "if min(sizes) < 1:"
NEW = "if min(sizes) < 0:"
TESTS = ("tests/core/test_units.py::test_what_is_no_batch_is_refused",)
