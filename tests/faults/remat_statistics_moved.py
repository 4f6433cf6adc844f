"""A deliberate fault; README.md says how it is read."""

PROMISE = "what reads a buffer that the forward changes does not run again"
SOURCE = "shoestring/activations/remat/capture/joint.py"
OLD = "if any(read in self._outputs.changed for read in node.all_input_nodes):"
NEW = "if False:"
TESTS = ("tests/activations/remat/test_emission.py::test_equal_to_the_plain_step_to_the_last_bit",)
