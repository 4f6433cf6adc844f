"""A deliberate fault; README.md says how it is read."""

PROMISE = "a count that was written reads back whole"
SOURCE = "shoestring/measure/counting/documents.py"
OLD = "    return tuple(Row(*values) for values in made)"
NEW = "    return tuple(dict.fromkeys(Row(*values)._replace(calls=1) for values in made))"
TESTS = (
    "tests/measure/test_count_documents.py::test_what_was_written_reads_back",
    "tests/measure/test_count_documents.py::test_a_real_count_reads_back_from_its_file",
)
