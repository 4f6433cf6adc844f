"""A deliberate fault; README.md says how it is read."""

PROMISE = "a reader that has gone is no error"
SOURCE = "shoestring/cli/app.py"
OLD = "    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())\n"
NEW = ""
TESTS = ("tests/cli/test_list_cite.py::test_a_reader_that_has_gone_is_no_error",)
