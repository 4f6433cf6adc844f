"""A deliberate fault; README.md says how it is read."""

PROMISE = "an option of the published names that has no effect is refused"
SOURCE = "shoestring/zeroth/compat.py"
OLD = "if beta and not use_smoothing:"
NEW = "if False:"
TESTS = ("tests/zeroth/test_compat.py::test_options_without_effect_are_refused",)
