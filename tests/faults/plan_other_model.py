"""A deliberate fault; README.md says how it is read."""

PROMISE = "a plan for another model is refused"
SOURCE = "shoestring/planner/plan.py"
OLD = "        if fingerprint(model) != self.fingerprint:\n"
NEW = "        if not self.fingerprint:\n"
TESTS = ("tests/planner/test_plan_file.py::test_another_model_is_refused_and_left_alone",)
