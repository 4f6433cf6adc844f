"""A deliberate fault; README.md says how it is read."""

PROMISE = "weights that are moved farther by now still come back to the last bit"
SOURCE = "shoestring/zeroth/hizoo.py"
OLD = '            state["eps"] = 0.0'
NEW = "            pass"
TESTS = (
    "tests/zeroth/test_hizoo.py::test_a_flat_loss_moves_weights_ever_farther_and_they_come_back",
)
