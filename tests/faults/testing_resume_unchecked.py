"""A deliberate fault; README.md says how it is read."""

PROMISE = "check_optimizer notices state that is lost on load"
SOURCE = "shoestring/testing/optimizers.py"
OLD = "    _train(resumed, other, 3)\n"
NEW = "    resumed = params\n"
TESTS = ("tests/test_testing.py::test_each_broken_optimizer_is_caught[LosesMomentumOnLoad-]",)
