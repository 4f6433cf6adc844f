"""A deliberate fault; README.md says how it is read."""

PROMISE = "what draws random numbers runs in forward, where the plain step runs it"
SOURCE = "shoestring/activations/remat/simulate.py"
OLD = "        if index < graph.border and times[graph.border] and not node.repeatable:"
NEW = "        if False:"
TESTS = (
    "tests/activations/remat/test_simulate.py::test_what_draws_random_numbers_runs_before_the_border",
)
