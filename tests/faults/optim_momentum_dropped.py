"""A deliberate fault; README.md says how it is read."""

PROMISE = "the sliced step keeps SGD's momentum"
SOURCE = "shoestring/optim/sliced.py"
OLD = "buffers = [part[2] if started else None]"
NEW = "buffers = [None]"
TESTS = (
    "tests/optim/test_step.py::test_sliced_equals_the_loop_at_the_real_slice_size"
    "[SGD-options6-dtype0]",
)
