"""A deliberate fault; README.md says how it is read."""

PROMISE = "what was drawn is held for what is made again from it"
SOURCE = "shoestring/activations/remat/solvers/mend.py"
OLD = "if not tables.again[read] or small or"
NEW = "if small or"
TESTS = (
    "tests/activations/remat/test_hilp_mend.py::test_what_cannot_be_made_again_is_held_for_what_needs_it",
)
