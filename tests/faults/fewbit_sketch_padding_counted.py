"""A deliberate fault; README.md says how it is read."""

PROMISE = "a sketch that is padded is right on average"
SOURCE = "shoestring/activations/fewbit/sketches.py"
OLD = "turned.mul_(size**-0.5)"
NEW = "turned.mul_((count / total / size) ** 0.5)"
TESTS = ("tests/activations/fewbit/test_randomized_linear.py::test_the_mean_is_the_gradient[srht]",)
