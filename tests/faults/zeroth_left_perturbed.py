"""A deliberate fault; README.md says how it is read."""

PROMISE = "an interrupt leaves the weights as they were"
SOURCE = "shoestring/zeroth/engine.py"
OLD = "        except BaseException:\n            self._go(None)\n"
NEW = "        except BaseException:\n"
TESTS = (
    "tests/zeroth/test_engine.py::test_an_error_or_an_interrupt_leaves_the_weights_as_they_were",
)
