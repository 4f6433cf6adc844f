"""A deliberate fault; README.md says how it is read."""

PROMISE = "FlopCo's stand-in leaves the model's buffers as they were"
SOURCE = "shoestring/measure/compat.py"
OLD = "            module._buffers[name] = buffer\n"
NEW = ""
TESTS = ("tests/measure/test_compat.py::test_the_model_and_the_random_numbers_stay_as_they_are",)
