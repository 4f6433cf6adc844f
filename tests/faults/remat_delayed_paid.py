"""A deliberate fault; README.md says how it is read."""

PROMISE = "what only backward needs is delayed and paid once"
SOURCE = "shoestring/activations/remat/solvers/closure_parts.py"
OLD = "            twice[:, node] &= ~late[:, node]"
NEW = "            pass"
TESTS = (
    "tests/activations/remat/test_closure.py::test_what_only_backward_needs_is_delayed_and_costs_nothing",
)
