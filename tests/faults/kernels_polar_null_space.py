"""A deliberate fault; README.md says how it is read."""

PROMISE = "a matrix of few drawn entries steps along its own singular vectors alone"
SOURCE = "shoestring/kernels/polar.py"
OLD = "(u * (s > least).unsqueeze(-2)) @ v"
NEW = "u @ v"
TESTS = (
    "tests/zeroth/test_jaguar.py::"
    "test_a_matrix_with_few_drawn_entries_moves_in_their_rows_and_columns_alone",
    "tests/zeroth/test_jaguar.py::test_no_slope_is_no_step",
)
