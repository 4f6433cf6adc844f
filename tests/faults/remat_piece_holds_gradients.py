"""A deliberate fault; README.md says how it is read."""

PROMISE = "a piece drops its gradients before autograd takes them"
SOURCE = "shoestring/activations/remat/capture/pieces.py"
OLD = "            self._box.clear()\n"
NEW = ""
TESTS = (
    "tests/activations/remat/test_pieces.py::test_gradients_that_stay_are_predicted_to_the_byte",
)
