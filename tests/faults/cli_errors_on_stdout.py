"""A deliberate fault; README.md says how it is read."""

PROMISE = "errors go to stderr"
SOURCE = "shoestring/cli/app.py"
OLD = 'sys.stderr.write(f"error: {message}\\n")'
NEW = 'sys.stdout.write(f"error: {message}\\n")'
TESTS = ("tests/cli/test_list_cite.py::test_a_wrong_command_is_answered_in_two_lines_and_code_2",)
