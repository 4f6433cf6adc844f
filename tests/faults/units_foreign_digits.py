"""A deliberate fault; README.md says how it is read."""

PROMISE = "only the digits 0 to 9 make a size"
SOURCE = "shoestring/core/units.py"
OLD = r'r"\s*([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([a-zA-Z]*)\s*", re.ASCII'
NEW = r'r"\s*(\d{1,15}(?:\.\d{1,9})?)\s*([a-zA-Z]*)\s*"'
TESTS = ("tests/core/test_units.py::test_what_is_no_size_is_refused",)
