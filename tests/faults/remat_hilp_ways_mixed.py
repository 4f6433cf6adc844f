"""A deliberate fault; README.md says how it is read."""

PROMISE = "a backward runs only in a way that its forward was run in"
SOURCE = "shoestring/activations/remat/solvers/hilp_model.py"
OLD = "self._where(stage, reader, lambda mode: value in mode.reads)"
NEW = "NEVER"
TESTS = ("tests/activations/remat/test_hilp.py::test_the_program_equals_a_search_through_all_runs",)
