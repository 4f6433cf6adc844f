"""A deliberate fault; README.md says how it is read."""

PROMISE = "a backend refuses a budget that is not understood at once"
SOURCE = "shoestring/activations/remat/backends.py"
OLD = "    Budget(activations=activations)\n"
NEW = ""
TESTS = (
    "tests/activations/remat/test_backends.py::test_a_budget_that_is_not_understood_is_refused_at_once",
)
