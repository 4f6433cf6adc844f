"""A deliberate fault; README.md says how it is read."""

PROMISE = "every row can be imported from its path"
SOURCE = "shoestring/catalog/spine.py"
OLD = 'path="shoestring.core.budget:Budget"'
NEW = 'path="shoestring.core.units:Budget"'
TESTS = ("tests/test_catalog.py::test_every_row_can_be_imported_from_its_path",)
