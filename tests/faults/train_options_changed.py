"""A deliberate fault; README.md says how it is read."""

PROMISE = "a run goes on only with the options that it was begun with"
SOURCE = "shoestring/integrations/text_training.py"
OLD = "    for what, new in {**now, **settings.choices}.items():\n"
NEW = "    for what, new in now.items():\n"
TESTS = ("tests/integrations/test_training.py::test_a_run_is_not_overwritten_and_not_mixed_up",)
