"""A deliberate fault; README.md says how it is read."""

PROMISE = "the curvature is learnt along all directions of a step"
SOURCE = "shoestring/zeroth/hizoo.py"
OLD = "growth.addcmul_(z, z, value=alpha * bend)"
NEW = "growth.addcmul_(numbers[0], numbers[0], value=alpha * bend)"
TESTS = ("tests/zeroth/test_hizoo.py::test_the_course_is_that_of_the_formula",)
