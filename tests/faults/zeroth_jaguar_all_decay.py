"""A deliberate fault; README.md says how it is read."""

PROMISE = "only the drawn entries of the momentum change"
SOURCE = "shoestring/zeroth/jaguar.py"
OLD = """            seen = rows[places].mul_(group["momentum"])
"""
NEW = """            seen = rows.mul_(group["momentum"])[places]
"""
TESTS = ("tests/zeroth/test_jaguar.py::test_the_trajectory_is_that_of_the_algorithm",)
