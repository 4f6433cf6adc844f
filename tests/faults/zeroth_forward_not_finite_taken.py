"""A deliberate fault; README.md says how it is read."""

PROMISE = "a step whose loss is not finite is left out, also where its slope is"
SOURCE = "shoestring/zeroth/forward_gradient.py"
OLD = "s if math.isfinite(n) else math.nan"
NEW = "s"
TESTS = ("tests/zeroth/test_forward_gradient.py::test_a_loss_that_is_not_finite_is_left_out",)
