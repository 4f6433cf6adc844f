"""A deliberate fault; README.md says how it is read."""

PROMISE = "a cell that was not asked about keeps its memory"
SOURCE = "shoestring/zeroth/attacks/jaguar.py"
OLD = "self._memory = torch.where(self._direction != 0, mixed, self._memory)"
NEW = "self._memory = mixed"
TESTS = ("tests/zeroth/attacks/test_search.py::test_jaguar",)
