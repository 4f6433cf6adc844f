"""A deliberate fault; README.md says how it is read."""

PROMISE = "the radius is the one at which a difference is least off"
SOURCE = "shoestring/zeroth/guarantees/differences.py"
OLD = "return math.sqrt(2 * Delta / L) / norm"
NEW = "return math.sqrt(Delta / L) / norm"
TESTS = (
    "tests/zeroth/test_guarantees.py::test_the_error_of_a_difference_is_reached_and_least_at_the_radius",
)
