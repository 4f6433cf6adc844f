"""A deliberate fault; README.md says how it is read."""

PROMISE = "explain_oom remembers shapes and keeps no batch alive"
SOURCE = "shoestring/planner/oom.py"
OLD = 'lambda t: torch.empty_like(t, device="meta")'
NEW = "lambda t: t"
TESTS = ("tests/planner/test_oom.py::test_without_an_error_nothing_is_changed_kept_or_computed",)
