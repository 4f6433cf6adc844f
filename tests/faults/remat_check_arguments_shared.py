"""A deliberate fault; README.md says how it is read."""

PROMISE = "what a block writes to its arguments harms no other run"
SOURCE = "shoestring/activations/remat/check_calls.py"
OLD = "passed.append((name, leaf.clone(), tensor))"
NEW = "passed.append((name, leaf.data.requires_grad_(), tensor))"
TESTS = ("tests/activations/remat/test_check.py::test_a_block_that_changes_its_arguments_is_found",)
