"""A deliberate fault; README.md says how it is read."""

PROMISE = "verify holds no gradient in memory while the step runs"
SOURCE = "shoestring/planner/verify.py"
OLD = "        kept = _Kept(Path(folder))\n"
NEW = "        kept = _Kept(Path(folder))\n        _held = [p.grad for p in model.parameters()]\n"
TESTS = ("tests/planner/test_verify.py::test_the_whole_of_verify_takes_no_more_memory_than_a_step",)
