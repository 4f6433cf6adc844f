"""A deliberate fault; README.md says how it is read."""

PROMISE = "an interrupt leaves weights and the last place as they were"
SOURCE = "shoestring/zeroth/marina.py"
OLD = "        try:\n            yield\n        finally:\n            self._swap(moved)\n"
NEW = "        yield\n        self._swap(moved)\n"
TESTS = (
    "tests/zeroth/test_marina.py::test_an_error_or_an_interrupt_leaves_the_weights_as_they_were",
)
