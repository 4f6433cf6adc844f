"""A deliberate fault; README.md says how it is read."""

PROMISE = "where the parameters are moved in place after all, it is said"
SOURCE = "shoestring/zeroth/twin/watch.py"
OLD = "        warnings.warn(words, TwinWarning, stacklevel=2)\n"
NEW = "        assert words\n"
TESTS = ("tests/zeroth/test_twin.py::test_in_place_from_then_on",)
