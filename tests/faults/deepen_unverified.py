"""A deliberate fault; README.md says how it is read."""

PROMISE = "a few layers stand for all only where they give the whole trace"
SOURCE = "shoestring/planner/tracing.py"
OLD = "return deep is not None and _agree(deep, self._traces[0])"
NEW = "return deep is not None"
TESTS = ("tests/core/test_deepen.py::test_a_profile_uses_it_only_where_it_gives_the_whole_trace",)
