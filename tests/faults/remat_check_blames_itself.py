"""A deliberate fault; README.md says how it is read."""

PROMISE = "what differs by itself is not blamed on computing again"
SOURCE = "shoestring/activations/remat/check.py"
OLD = "if any(_differences(plain, _outcome(block, call, _itself)).values()):"
NEW = "if not differences:"
TESTS = (
    "tests/activations/remat/test_check.py::test_what_differs_by_itself_is_not_blamed_on_computing_again",
)
