"""A deliberate fault; README.md says how it is read."""

PROMISE = "the anchor and the weights keep their places"
SOURCE = "shoestring/zeroth/svrg.py"
OLD = "            self._away = False\n            self._swap()\n"
NEW = "            self._away = False\n"
TESTS = ("tests/zeroth/test_svrg.py::test_an_interrupt_leaves_weights_and_anchor",)
