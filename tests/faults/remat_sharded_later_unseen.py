"""A deliberate fault; README.md says how it is read."""

PROMISE = "a fitted model that is sharded is refused by name"
SOURCE = "shoestring/activations/remat/fit_forward.py"
OLD = "        refuse_sharded(self)\n"
NEW = ""
TESTS = ("tests/activations/remat/test_processes.py::test_a_sharded_model_is_refused_by_name",)
