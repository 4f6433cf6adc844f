"""A deliberate fault; README.md says how it is read."""

PROMISE = "an input that the forward writes to is not passed through another node"
SOURCE = "shoestring/activations/remat/capture/pieces.py"
OLD = "[] if any(each.source in written for each in ready) else group(ready)"
NEW = "group(ready)"
TESTS = ("tests/activations/remat/test_pieces.py::test_an_input_with_a_gradient_may_be_written_to",)
