"""A deliberate fault; README.md says how it is read."""

PROMISE = "the prediction frees each gradient in the update that uses it"
SOURCE = "shoestring/optim/rewrite.py"
OLD = "        if released and index in consumed:"
NEW = "        if False and index in consumed:"
TESTS = (
    "tests/optim/test_prediction.py::test_released_gradients_die_one_by_one",
    "tests/optim/test_prediction.py::test_predicted_equals_measured[adamw-release-gradients]",
)
