"""A deliberate fault; README.md says how it is read."""

PROMISE = "a part of a tuple does not keep the others alive"
SOURCE = "shoestring/activations/remat/capture/pieces.py"
OLD = ' or not isinstance(wholes[0].meta["val"], torch.Tensor)'
NEW = ""
TESTS = (
    "tests/activations/remat/test_pieces.py::test_gradients_that_stay_are_predicted_to_the_byte",
)
