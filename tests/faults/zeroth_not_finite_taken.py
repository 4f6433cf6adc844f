"""A deliberate fault; README.md says how it is read."""

PROMISE = "a step without a finite loss is left out"
SOURCE = "shoestring/zeroth/engine.py"
OLD = "        if not finite:\n"
NEW = "        if False:\n"
TESTS = ("tests/zeroth/test_engine.py::test_a_step_without_a_finite_loss_is_left_out",)
