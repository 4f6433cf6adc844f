"""A deliberate fault; README.md says how it is read."""

PROMISE = "a count of which rows are gone is refused"
SOURCE = "shoestring/measure/counting/documents.py"
OLD = "    if total != dataclasses.asdict(sum_up(rows)):"
NEW = "    if False:"
TESTS = ("tests/measure/test_count_documents.py::test_rows_that_are_gone_are_noticed",)
