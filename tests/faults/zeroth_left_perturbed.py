"""A deliberate fault; README.md says how it is read."""

PROMISE = "an interrupt leaves the weights as they were"
SOURCE = "shoestring/zeroth/engine.py"
OLD = "            asking.leave()\n            raise"
NEW = "            raise"
TESTS = (
    "tests/zeroth/test_engine.py::test_an_error_or_an_interrupt_leaves_the_weights_as_they_were",
)
