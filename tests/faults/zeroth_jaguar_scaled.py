"""A deliberate fault; README.md says how it is read."""

PROMISE = "drawn entries move by eps, whatever their number"
SOURCE = "shoestring/zeroth/jaguar.py"
OLD = "Coordinates(z.places, z.values.sign())"
NEW = "Coordinates(z.places, z.values)"
TESTS = (
    "tests/zeroth/test_jaguar.py::test_entries_are_drawn_of_all_weights_alike",
    "tests/zeroth/test_jaguar.py::test_only_what_is_drawn_moves_for_the_question",
)
