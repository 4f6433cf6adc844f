"""A deliberate fault; README.md says how it is read."""

PROMISE = "normal directions cost d + 2, not d"
SOURCE = "shoestring/zeroth/guarantees/sgd.py"
OLD = "    k = d + 2\n"
NEW = "    k = d\n"
TESTS = ("tests/zeroth/test_guarantees.py::test_the_figures_of_fifty_numbers",)
