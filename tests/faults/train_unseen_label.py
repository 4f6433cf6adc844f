"""A deliberate fault; README.md says how it is read."""

PROMISE = "a label unseen in training is an error"
SOURCE = "shoestring/integrations/text_sources.py"
OLD = "return known[value] if 0 <= value < len(known) else None"
NEW = "return known[value % len(known)]"
TESTS = ("tests/integrations/test_text_data.py::test_classes_that_an_object_names_are_called_so",)
