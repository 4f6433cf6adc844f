"""A deliberate fault; README.md says how it is read."""

PROMISE = "a document nested too deeply is refused, and does not end the program"
SOURCE = "shoestring/core/documents.py"
OLD = "    except RecursionError:\n"
NEW = "    except MemoryError:\n"
TESTS = ("tests/test_documents.py::test_a_broken_document_is_refused_in_a_clear_sentence",)
