"""A deliberate fault; README.md says how it is read."""

PROMISE = "noise='torch' draws the numbers of the published program"
SOURCE = "shoestring/zeroth/published.py"
OLD = "_Stream(int(_seeds(seed, rows)[place]), tensors)"
NEW = "_Stream(int(_seeds(seed, rows)[place]) + 1, tensors)"
TESTS = ("tests/zeroth/test_published.py::test_its_steps_are_those_of_the_published_program",)
