"""A deliberate fault; README.md says how it is read."""

PROMISE = "Adam's step count advances once a step, not once a slice"
SOURCE = "shoestring/optim/sliced.py"
OLD = "[before.clone()],  # each slice counts the same step"
NEW = "[before],"
TESTS = (
    "tests/optim/test_step.py::test_step_counts_once_whatever_the_number_of_slices",
    "tests/optim/test_step.py::test_sliced_equals_the_loop_bitwise",
)
