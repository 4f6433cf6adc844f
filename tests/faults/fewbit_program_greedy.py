"""A deliberate fault; README.md says how it is read."""

PROMISE = "the dynamic program is exact on its cells"
SOURCE = "shoestring/activations/fewbit/optimum.py"
OLD = "    np.maximum(costs, 0.0, out=costs)\n"
NEW = "    np.maximum(costs, 0.01, out=costs)\n"
TESTS = (
    "tests/activations/fewbit/test_quantizer_optimum.py::test_the_program_is_exact_on_any_cells",
)
