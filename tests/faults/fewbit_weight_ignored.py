"""A deliberate fault; README.md says how it is read."""

PROMISE = "a table fitted to a histogram is best for what was seen"
SOURCE = "shoestring/activations/fewbit/weights.py"
OLD = "counts / total / np.diff(edges)"
NEW = "counts / total"
TESTS = (
    "tests/activations/fewbit/test_quantizer_weights.py::test_a_histogram_is_a_density",
    "tests/activations/fewbit/test_quantizer_weights.py::"
    "test_a_table_fitted_to_a_sample_is_best_on_the_sample",
)
