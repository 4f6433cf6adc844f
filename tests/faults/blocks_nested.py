"""A deliberate fault; README.md says how it is read."""

PROMISE = "what a block holds is not reported again"
SOURCE = "shoestring/measure/tracing/blocks.py"
OLD = "if 2 * len(distinct) <= len(group):"
NEW = "if not distinct:"
TESTS = ("tests/measure/test_blocks.py::test_what_a_block_holds_is_not_reported_again",)
