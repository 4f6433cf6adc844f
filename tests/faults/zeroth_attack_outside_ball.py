"""A deliberate fault; README.md says how it is read."""

PROMISE = "what is asked for and what is found is inside the ball"
SOURCE = "shoestring/zeroth/attacks/ball.py"
OLD = 'share = (self.eps / lengths(deltas, "l2").clamp(min=_LEAST)).clamp(max=1)'
NEW = 'share = (self.eps / lengths(deltas, "linf").clamp(min=_LEAST)).clamp(max=1)'
TESTS = ("tests/zeroth/attacks/test_parts.py::test_projection",)
