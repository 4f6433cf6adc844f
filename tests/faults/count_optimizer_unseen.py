"""A deliberate fault; README.md says how it is read."""

PROMISE = "what an optimizer does is told apart from forward"
SOURCE = "shoestring/measure/tracing/tracer.py"
OLD = "                return Phase.OPTIMIZER, path, -1, -1"
NEW = "                pass"
TESTS = (
    "tests/measure/test_count.py::test_phases_are_told_apart_without_being_told",
    "tests/measure/test_count.py::test_a_step_within_backward_is_the_optimizer_s",
)
