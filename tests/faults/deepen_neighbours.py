"""A deliberate fault; README.md says how it is read."""

PROMISE = "what a layer hands to the next dies there"
SOURCE = "shoestring/core/deepen.py"
OLD = "        return layer + target - owner\n"
NEW = "        return layer\n"
TESTS = ("tests/core/test_deepen.py::test_equal_to_the_trace_of_the_deep_model",)
