"""A deliberate fault; README.md says how it is read."""

PROMISE = "iterations_for returns the least number"
SOURCE = "shoestring/zeroth/guarantees/record.py"
OLD = "(low, middle) if self._value(middle) <= eps else (middle, high)"
NEW = "(low, middle) if self._value(middle) <= 0.9 * eps else (middle, high)"
TESTS = (
    "tests/zeroth/test_guarantee_record.py::test_iterations_are_the_least_and_grow_as_less_is_asked",
)
