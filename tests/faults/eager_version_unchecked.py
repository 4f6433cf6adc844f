"""A deliberate fault; README.md says how it is read."""

PROMISE = "what was changed in place since the forward is an error"
SOURCE = "shoestring/activations/remat/eager/tape.py"
OLD = "        if version != self.version:"
NEW = "        if False:"
TESTS = (
    "tests/activations/test_rematerialisation.py::test_a_weight_that_is_changed_before_backward_is_an_error_as_without_it",
)
