"""A deliberate fault; README.md says how it is read."""

PROMISE = "every technique in the package has a row"
SOURCE = "shoestring/catalog/__init__.py"
OLD = """

def rows() -> tuple[Row, ...]:"""
NEW = """
_ROWS = tuple(row for row in _ROWS if row.name != "lora")


def rows() -> tuple[Row, ...]:"""
TESTS = ("tests/test_catalog.py::test_every_technique_in_the_package_has_a_row",)
