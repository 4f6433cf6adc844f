"""A deliberate fault; README.md says how it is read."""

PROMISE = "the curves of memory are drawn beside, not upon, each other"
SOURCE = "shoestring/report/remat.py"
OLD = """\
        stack=None,  # operations that take no time share a place
"""
NEW = ""
TESTS = ("tests/report/test_remat.py::test_the_curves_are_the_bytes_over_time",)
