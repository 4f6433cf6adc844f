"""A deliberate fault; README.md says how it is read."""

PROMISE = "both runs of a self-check begin from the same random numbers"
SOURCE = "shoestring/activations/remat/check.py"
OLD = "with rng_untouched(), unchanged(block) as changes, "
NEW = "with unchanged(block) as changes, "
TESTS = ("tests/activations/remat/test_check.py::test_the_captured_path_is_exact",)
