"""A deliberate fault; README.md says how it is read."""

PROMISE = "the chunked cross-entropy smooths labels as torch does"
SOURCE = "shoestring/activations/chunked_cross_entropy.py"
OLD = "            label_smoothing=self.label_smoothing,\n"
NEW = ""
TESTS = (
    "tests/activations/test_chunked_cross_entropy.py::"
    "test_values_and_gradients_are_those_of_the_plain_computation",
    "tests/activations/test_chunked_cross_entropy.py::test_values_and_gradients_are_those_of_the_definition",
)
