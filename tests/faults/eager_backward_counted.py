"""A deliberate fault; README.md says how it is read."""

PROMISE = "what a forward differentiates itself has no sites"
SOURCE = "shoestring/activations/remat/eager/tape.py"
OLD = "        if current_node() is None:  #"
NEW = "        if True:  #"
TESTS = (
    "tests/activations/remat/eager/test_traps.py::test_a_part_that_is_differentiated_has_no_sites",
)
