"""A deliberate fault; README.md says how it is read."""

PROMISE = "every solver's answer has the bound that holds for all orders"
SOURCE = "shoestring/activations/remat/solvers/find.py"
OLD = "    bound = max(bound, least_seconds(swept, budget))\n"
NEW = ""
TESTS = (
    "tests/activations/remat/test_find.py::test_other_bounds_than_that_of_running_all_once_reach_every_solver",
)
