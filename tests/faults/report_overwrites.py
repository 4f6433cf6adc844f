"""A deliberate fault; README.md says how it is read."""

PROMISE = "a report replaces only a report"
SOURCE = "shoestring/core/documents.py"
OLD = "if start and mark.encode() not in start:"
NEW = "if False:"
TESTS = ("tests/report/test_page.py::test_an_older_report_is_replaced_and_another_file_is_not",)
