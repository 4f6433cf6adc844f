"""A deliberate fault; README.md says how it is read."""

PROMISE = "a value is made again before its node begins"
SOURCE = "shoestring/activations/remat/eager/predict.py"
OLD = "                starts[index] = starts[index - 1]\n"
NEW = "                starts[index] = index\n"
TESTS = ("tests/activations/remat/eager/test_predict.py::test_the_timeline_is_that_of_every_event",)
