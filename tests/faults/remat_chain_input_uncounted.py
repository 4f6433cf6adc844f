"""A deliberate fault; README.md says how it is read."""

PROMISE = "a checkpointed input takes the memory that it takes"
SOURCE = "shoestring/activations/remat/solvers/rotor.py"
OLD = "                shift = self._needs.input[i]\n"
NEW = "                shift = 0\n"
TESTS = ("tests/activations/remat/test_rotor.py::test_equals_the_search_over_all_schedules",)
