"""A deliberate fault; README.md says how it is read."""

PROMISE = "a document with a key twice is refused"
SOURCE = "shoestring/core/documents.py"
OLD = "            object_pairs_hook=_unique,\n"
NEW = ""
TESTS = ("tests/test_documents.py::test_a_broken_document_is_refused_in_a_clear_sentence",)
