"""A deliberate fault; README.md says how it is read."""

PROMISE = "borders are stationary, not only the best of a grid"
SOURCE = "shoestring/activations/fewbit/polish.py"
OLD = """    for _ in range(_ROUNDS):
        found = _newton(samples, found)
        moved"""
NEW = """    for _ in range(0):
        found = _newton(samples, found)
        moved"""
TESTS = (
    "tests/activations/fewbit/test_quantizer.py::test_borders_lie_in_the_middle_and_levels_are_means",
    "tests/activations/fewbit/test_quantizer.py::test_tables_are_those_of_another_program",
)
