"""A deliberate fault; README.md says how it is read."""

PROMISE = "a short message stands for all coordinates"
SOURCE = "shoestring/zeroth/marina_rounds.py"
OLD = "sums * (len(self.entries) / len(each[0])) / len(received)"
NEW = "sums / len(received)"
TESTS = (
    "tests/zeroth/test_marina.py::test_it_does_what_the_definition_says",
    "tests/zeroth/test_marina.py::test_the_error_of_a_short_message_is_that_of_the_theory",
)
