"""A deliberate fault; README.md says how it is read."""

PROMISE = "LOZO's momentum is carried over into the next subspace"
SOURCE = "shoestring/zeroth/lozo.py"
OLD = "        buffer.copy_(buffer @ (old.T @ new) / len(new))\n"
NEW = ""
TESTS = (
    "tests/zeroth/test_lozo.py::test_the_course_is_that_of_the_formula",
    "tests/zeroth/test_lozo.py::test_the_momentum_is_small_and_is_carried_over",
)
