"""A deliberate fault; README.md says how it is read."""

PROMISE = "what was seen of an entry stays until it is drawn again"
SOURCE = "shoestring/zeroth/jaguar.py"
OLD = """        rows = mean.view(-1)
"""
NEW = """        rows = mean.zero_().view(-1)
"""
TESTS = (
    "tests/zeroth/test_jaguar.py::test_one_coordinate_keeps_the_derivative_that_was_last_seen",
    "tests/zeroth/test_jaguar.py::test_the_gradients_stay_below_the_bound",
    "tests/zeroth/test_published_defects.py::test_no_momentum",
)
