"""A deliberate fault; README.md says how it is read."""

PROMISE = "a model that was saved comes back plain"
SOURCE = "shoestring/activations/remat/eager/recording.py"
OLD = ' and own is not getattr(type(model), "forward", None)'
NEW = ""
TESTS = ("tests/activations/remat/eager/test_models.py::test_a_saved_model_is_a_plain_one",)
