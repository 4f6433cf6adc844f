"""A deliberate fault; README.md says how it is read."""

PROMISE = "rows that are drawn by their length are weighted against it"
SOURCE = "shoestring/activations/fewbit/sketches.py"
OLD = "weights = (total / (size * lengths[picks])).sqrt()"
NEW = "weights = (lengths[picks] * 0 + len(rows) / size).sqrt()"
TESTS = (
    "tests/activations/fewbit/test_randomized_linear.py::test_the_mean_is_the_gradient[importance]",
)
