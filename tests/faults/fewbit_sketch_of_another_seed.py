"""A deliberate fault; README.md says how it is read."""

PROMISE = "the gradient is sketched as its input was"
SOURCE = "shoestring/activations/fewbit/randomized_linear.py"
OLD = "mixed = sketched(rows, seed, ctx.ratio, ctx.kind)"
NEW = "mixed = sketched(rows, seed + 1, ctx.ratio, ctx.kind)"
TESTS = (
    "tests/activations/fewbit/test_randomized_linear.py::test_layers_mean_gradient_is_the_plain_one[rademacher]",
)
