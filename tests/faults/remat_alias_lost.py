"""A deliberate fault; README.md says how it is read."""

PROMISE = "what comes through an output that is an input is added"
SOURCE = "shoestring/activations/remat/capture/pieces.py"
OLD = "found[place] = other if mine is None else other + mine"
NEW = "found[place] = other if mine is None else mine"
TESTS = (
    "tests/activations/remat/test_pieces.py::test_what_comes_from_outside_through_an_output_is_added",
)
