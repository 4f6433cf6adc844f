"""A deliberate fault; README.md says how it is read."""

PROMISE = "a document of more than the allowed bytes is refused"
SOURCE = "shoestring/core/documents.py"
OLD = "    if len(data) > most_bytes:"
NEW = "    if len(data) > most_bytes + 1:"
TESTS = ("tests/test_documents.py::test_a_large_file_is_refused",)
