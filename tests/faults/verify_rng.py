"""A deliberate fault; README.md says how it is read."""

PROMISE = "verify leaves the random numbers as they were"
SOURCE = "shoestring/planner/verify.py"
OLD = "    with rng_untouched(), _on_disk(model):\n"
NEW = "    with _on_disk(model):\n"
TESTS = ("tests/planner/test_verify.py::test_everything_is_bitwise_as_before",)
