"""A deliberate fault; README.md says how it is read."""

PROMISE = "intervals share levels where that makes the error less"
SOURCE = "shoestring/activations/fewbit/fitting.py"
OLD = "            found[width] = shared\n"
NEW = "            pass\n"
TESTS = (
    "tests/activations/fewbit/test_quantizer.py::test_shared_levels_divide_the_error",
    "tests/activations/fewbit/test_quantizer.py::"
    "test_shared_levels_are_better_than_those_of_another_program_and_close",
)
