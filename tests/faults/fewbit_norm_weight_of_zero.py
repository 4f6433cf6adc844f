"""A deliberate fault; README.md says how it is read."""

PROMISE = "a norm whose weight is zero somewhere keeps its input"
SOURCE = "shoestring/activations/fewbit/norms.py"
OLD = "return bool(enough.all())"
NEW = "return bool(enough.any())"
TESTS = (
    "tests/activations/fewbit/test_norms.py::test_a_weight_that_cannot_be_divided_by_keeps_the_input",
)
