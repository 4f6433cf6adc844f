"""A deliberate fault; README.md says how it is read."""

PROMISE = "a write that fails leaves no temporary file"
SOURCE = "shoestring/core/documents.py"
OLD = """    except OSError as error:
        _discard(temporary)
"""
NEW = """    except OSError as error:
"""
TESTS = (
    "tests/test_documents.py::test_a_full_disk_leaves_the_old_file_and_no_other",
    "tests/test_documents.py::test_a_folder_in_the_way_leaves_no_temporary_file",
)
