"""A deliberate fault; README.md says how it is read."""

PROMISE = "a document of another schema is refused"
SOURCE = "shoestring/core/documents.py"
OLD = 'if document["schema"] != schema:'
NEW = 'if not document["schema"].startswith("shoestring/"):'
TESTS = ("tests/test_documents.py::test_a_broken_document_is_refused_in_a_clear_sentence",)
