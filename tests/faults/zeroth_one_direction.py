"""A deliberate fault; README.md says how it is read."""

PROMISE = "each slope goes with its own direction"
SOURCE = "shoestring/zeroth/engine.py"
OLD = 'directions, scales = self._directions(self._shared["draws"], index), []'
NEW = 'directions, scales = self._directions(self._shared["draws"], 0), []'
TESTS = ("tests/zeroth/test_engine.py::test_a_step_is_that_of_the_formula",)
