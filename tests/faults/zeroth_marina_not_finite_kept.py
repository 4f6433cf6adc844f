"""A deliberate fault; README.md says how it is read."""

PROMISE = "a round whose loss is not finite is left out"
SOURCE = "shoestring/zeroth/marina.py"
OLD = "if bool(mean.isfinite().all()):"
NEW = "if True:"
TESTS = ("tests/zeroth/test_marina.py::test_a_round_whose_loss_is_not_finite_is_left_out",)
