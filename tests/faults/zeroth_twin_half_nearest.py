"""A deliberate fault; README.md says how it is read."""

PROMISE = "a move below the spacing of bfloat16 is not lost"
SOURCE = "shoestring/zeroth/twin/halves.py"
OLD = "    return round_at_random(rows, dtype, drawn).to(dtype).view(values.shape)\n"
NEW = "    return rows.to(dtype).view(values.shape)\n"
TESTS = ("tests/zeroth/test_twin.py::test_a_move_below_the_spacing_of_the_weights",)
