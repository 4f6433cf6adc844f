"""A deliberate fault; README.md says how it is read."""

PROMISE = "what draws random numbers draws the same again"
SOURCE = "shoestring/activations/remat/eager/tape.py"
OLD = "            result = replay(*self._state, self.func, args, kwargs)"
NEW = "            result = self.func(*args, **kwargs)"
TESTS = (
    "tests/activations/test_rematerialisation.py::test_exact_with_dropout_and_running_statistics",
)
