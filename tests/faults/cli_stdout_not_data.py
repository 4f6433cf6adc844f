"""A deliberate fault; README.md says how it is read."""

PROMISE = "what a model prints while it is traced does not mix with the data on stdout"
SOURCE = "shoestring/cli/models.py"
OLD = "            contextlib.redirect_stdout(sys.stderr),\n"
NEW = "            contextlib.redirect_stdout(sys.__stdout__),\n"
TESTS = ("tests/cli/test_profile.py::test_the_table_is_on_stdout_and_what_the_model_prints_is_not",)
