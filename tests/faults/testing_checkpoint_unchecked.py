"""A deliberate fault; README.md says how it is read."""

PROMISE = "check_optimizer notices what a distributed checkpoint loses"
SOURCE = "shoestring/testing/optimizers.py"
OLD = "    set_optimizer_state_dict(torch.nn.ParameterList(resumed), other, loaded)\n"
NEW = "    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))\n"
TESTS = ("tests/test_testing.py::test_each_broken_optimizer_is_caught[LosesWhatIsBesideTheState-]",)
