"""A deliberate fault; README.md says how it is read."""

PROMISE = "a run whose slopes are below their noise is told so"
SOURCE = "shoestring/zeroth/monitor.py"
OLD = "if signal >= 1:"
NEW = "if signal >= 0:"
TESTS = (
    "tests/zeroth/test_monitor.py::test_noise_above_the_slope_is_told_once_with_what_would_lift_it",
)
