"""A deliberate fault; README.md says how it is read."""

PROMISE = "a direction on the sphere has one length"
SOURCE = "shoestring/zeroth/directions.py"
OLD = "return [Normal(z.key, size) for z in normal]"
NEW = "return normal"
TESTS = ("tests/zeroth/test_directions.py::test_the_sphere_has_one_length",)
