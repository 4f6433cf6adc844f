"""A deliberate fault; README.md says how it is read."""

PROMISE = "a graph that is retained is freed with its loss"
SOURCE = "shoestring/activations/remat/eager/tape.py"
OLD = "            return Kept(tensor.detach(), "
NEW = "            return Kept(tensor, "
TESTS = (
    "tests/activations/remat/eager/test_models.py::test_a_forward_that_is_let_go_of_leaves_nothing",
)
