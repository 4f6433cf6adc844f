"""A deliberate fault; README.md says how it is read."""

PROMISE = "what Python holds until backward is not counted as freed"
SOURCE = "shoestring/activations/remat/eager/step_graph.py"
OLD = "        return storage.released is None or storage.released >= self._border"
NEW = "        return False"
TESTS = (
    "tests/activations/remat/eager/test_step_graph.py::test_what_python_holds_is_told_from_what_autograd_does",
)
