"""A deliberate fault; README.md says how it is read."""

PROMISE = "a call of the model within another is part of it"
SOURCE = "shoestring/activations/remat/eager/sites.py"
OLD = "        if start < end:  #"
NEW = "        if False:  #"
TESTS = (
    "tests/activations/remat/eager/test_sites.py::test_each_call_of_the_model_is_numbered_by_itself",
)
