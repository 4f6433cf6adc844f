"""A deliberate fault; README.md says how it is read."""

PROMISE = "a reader of what changes later does not run again"
SOURCE = "shoestring/activations/remat/eager/step_graph.py"
OLD = "        return any(i > index and i not in group for i in self._writes.get(s, ()))"
NEW = "        return False"
TESTS = (
    "tests/activations/remat/eager/test_step_graph.py::test_a_reader_of_what_changes_later_does_not_run_again",
)
