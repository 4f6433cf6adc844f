"""A deliberate fault; README.md says how it is read."""

PROMISE = "a compiler does not draw a seed again in backward"
SOURCE = "shoestring/activations/fewbit/randomized_linear.py"
OLD = "else draw_seed(input)"
NEW = "else _drawn(None)"
TESTS = (
    "tests/activations/fewbit/test_layers.py::test_compiled_whole_it_gives_the_same_gradients[linear]",
)
