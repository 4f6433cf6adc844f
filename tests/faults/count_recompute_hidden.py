"""A deliberate fault; README.md says how it is read."""

PROMISE = "what the backward of compiled code computes a second time is counted apart"
SOURCE = "shoestring/measure/counting/compiled.py"
OLD = "            node.meta[_REPEATED] = True\n"
NEW = "            pass\n"
TESTS = (
    "tests/measure/test_compiled.py::test_what_a_backward_repeats_stands_apart",
    "tests/measure/test_compiled.py::test_checkpoints_inside_of_compiled_code",
)
