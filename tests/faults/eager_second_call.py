"""A deliberate fault; README.md says how it is read."""

PROMISE = "the sites of a second call are counted anew"
SOURCE = "shoestring/activations/remat/eager/sites.py"
OLD = "        counting, end = Counting(), stop\n"
NEW = "        end = stop\n        counting = locals().get('counting') or Counting()\n"
TESTS = (
    "tests/activations/remat/eager/test_sites.py::test_each_call_of_the_model_is_numbered_by_itself",
)
