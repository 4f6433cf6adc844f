"""A deliberate fault; README.md says how it is read."""

PROMISE = "a change in place runs again though its value is there"
SOURCE = "shoestring/activations/remat/eager/predict.py"
OLD = "        open_storages = list(needed)\n"
NEW = "        open_storages = [s for s in needed if s not in self.change.copies]\n"
TESTS = ("tests/activations/remat/eager/test_predict.py::test_the_timeline_is_that_of_every_event",)
