"""A deliberate fault; README.md says how it is read."""

PROMISE = "weights and anchor are asked for at one distance"
SOURCE = "shoestring/zeroth/svrg.py"
OLD = "return not self._away and super()._is_due(draw)"
NEW = "return super()._is_due(draw)"
TESTS = ("tests/zeroth/test_svrg.py::test_both_places_have_one_radius",)
