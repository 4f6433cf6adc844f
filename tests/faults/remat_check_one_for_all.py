"""A deliberate fault; README.md says how it is read."""

PROMISE = "blocks that differ are each checked"
SOURCE = "shoestring/activations/remat/check_calls.py"
OLD = "(_sort_of_block(path, block), _sort_of_value((args, kwargs)))"
NEW = "type(block)"
TESTS = ("tests/activations/remat/test_check.py::test_blocks_that_differ_are_each_checked",)
