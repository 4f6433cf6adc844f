"""A deliberate fault; README.md says how it is read."""

PROMISE = "a file is replaced whole, never overwritten in place"
SOURCE = "shoestring/core/documents.py"
OLD = """        _write_new(temporary, data)
        temporary.replace(target)
"""
NEW = """        with open(target, "wb") as file:
            file.write(data)
            os.fsync(file.fileno())
"""
TESTS = (
    "tests/test_documents.py::test_a_full_disk_leaves_the_old_file_and_no_other",
    "tests/test_documents.py::test_an_interrupted_write_leaves_the_old_file_and_no_other",
)
