"""A deliberate fault; README.md says how it is read."""

PROMISE = "what is kept to make a value again lives until then"
SOURCE = "shoestring/activations/remat/eager/predict.py"
OLD = "            self.change.deaths[s] = number\n"
NEW = "            self.change.deaths.pop(s, None)\n"
TESTS = ("tests/activations/remat/eager/test_predict.py::test_the_timeline_is_that_of_every_event",)
