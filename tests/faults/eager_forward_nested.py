"""A deliberate fault; README.md says how it is read."""

PROMISE = "a model that calls itself is recorded once"
SOURCE = "shoestring/activations/remat/eager/recording.py"
OLD = " or any(map(is_active, tuple(running)))"
NEW = ""
TESTS = ("tests/activations/remat/eager/test_models.py::test_the_sites_are_those_of_the_trace",)
