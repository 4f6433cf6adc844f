"""A deliberate fault; README.md says how it is read."""

PROMISE = "a log that lacks its anchor is refused"
SOURCE = "shoestring/zeroth/svrg.py"
OLD = 'elif self._shared["anchor"] == _NONE or age != deltas[count]:'
NEW = "elif False:"
TESTS = ("tests/zeroth/test_svrg.py::test_a_log_that_begins_between_two_anchors_is_refused",)
