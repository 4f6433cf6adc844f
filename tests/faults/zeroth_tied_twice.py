"""A deliberate fault; README.md says how it is read."""

PROMISE = "what shares memory is moved once"
SOURCE = "shoestring/zeroth/kept.py"
OLD = "found.setdefault((parameter.data_ptr(), parameter.shape), (parameter, group))"
NEW = "found[id(parameter), parameter.shape] = (parameter, group)"
TESTS = ("tests/zeroth/test_engine.py::test_tied_and_empty_parameters",)
