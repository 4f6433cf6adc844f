"""A deliberate fault; README.md says how it is read."""

PROMISE = "a model's folder is left as it was, without compiled files"
SOURCE = "shoestring/cli/models.py"
OLD = "    sys.dont_write_bytecode = True\n"
NEW = "    sys.dont_write_bytecode = False\n"
TESTS = ("tests/cli/test_models.py::test_a_factory_is_found_in_a_file_or_a_module",)
