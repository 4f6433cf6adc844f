"""A deliberate fault; README.md says how it is read."""

PROMISE = "weights that outgrow their grid are settled anew, so that a log makes them again"
SOURCE = "shoestring/zeroth/places.py"
OLD = 'state["largest"] > state["room"]'
NEW = "False"
TESTS = ("tests/zeroth/test_log.py::test_weights_that_grow_are_made_again_too",)
