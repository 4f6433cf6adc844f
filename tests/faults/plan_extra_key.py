"""A deliberate fault; README.md says how it is read."""

PROMISE = "a plan file with an unknown key is refused"
SOURCE = "shoestring/planner/plan_file.py"
OLD = "    if extra or missing:\n"
NEW = "    if missing:\n"
TESTS = ("tests/planner/test_plan_file.py::test_a_damaged_plan_is_refused[extra key]",)
