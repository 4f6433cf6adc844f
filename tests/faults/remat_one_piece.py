"""A deliberate fault; README.md says how it is read."""

PROMISE = "gradients do not wait for the end of the backward"
SOURCE = "shoestring/activations/remat/capture/pieces.py"
OLD = "        self.groups = groups if len(groups) > 1 else []"
NEW = "        self.groups = []"
TESTS = (
    "tests/activations/remat/test_pieces.py::test_gradients_that_do_not_stay_are_not_alive_together",
)
