"""A deliberate fault; README.md says how it is read."""

PROMISE = "with a twin forward only the update writes to the parameters"
SOURCE = "shoestring/zeroth/engine.py"
OLD = 'if self._forward == "twin":'
NEW = 'if self._forward == "":'
TESTS = ("tests/zeroth/test_forwards.py::test_only_the_update_writes",)
