"""A deliberate fault; README.md says how it is read."""

PROMISE = "texts from files are only text in a report"
SOURCE = "shoestring/core/markup.py"
OLD = 'for character in "<>&":'
NEW = 'for character in ">&":'
TESTS = ("tests/report/test_page.py::test_texts_from_files_are_only_text",)
