"""A deliberate fault; README.md says how it is read."""

PROMISE = "operators of others do not run again"
SOURCE = "shoestring/activations/remat/eager/tape.py"
OLD = '    if func.namespace != "aten":\n        return False\n'
NEW = ""
TESTS = ("tests/activations/remat/eager/test_traps.py::test_an_operator_of_others_runs_once",)
