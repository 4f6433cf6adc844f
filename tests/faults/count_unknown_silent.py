"""A deliberate fault; README.md says how it is read."""

PROMISE = "an operator without a formula is unknown, never silently free"
SOURCE = "shoestring/measure/formulas/__init__.py"
OLD = "return formula or _tagged(func) or _unknown, positions(func)"
NEW = "return formula or _tagged(func) or _free, positions(func)"
TESTS = ("tests/measure/formulas/test_lookup.py::test_what_has_no_formula_is_unknown_and_not_free",)
