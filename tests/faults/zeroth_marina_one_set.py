"""A deliberate fault; README.md says how it is read."""

PROMISE = "each worker draws coordinates of its own"
SOURCE = "shoestring/zeroth/marina_rounds.py"
OLD = "stream_key(seed, _SET, draw, rank)"
NEW = "stream_key(seed, _SET, draw)"
TESTS = (
    "tests/zeroth/test_marina.py::test_sets_have_no_coordinate_twice_and_differ_by_worker_and_round",
    "tests/zeroth/test_marina.py::test_the_error_of_a_short_message_is_that_of_the_theory",
)
