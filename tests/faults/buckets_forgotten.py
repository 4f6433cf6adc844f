"""A deliberate fault; README.md says how it is read."""

PROMISE = "what DistributedDataParallel holds beside a step is in its prediction"
SOURCE = "shoestring/planner/wrapped.py"
OLD = '    return "views" if model.gradient_as_bucket_view else "copies"\n'
NEW = "    return None\n"
TESTS = ("tests/planner/test_wrapped.py::test_a_wrapper_says_by_itself_what_its_gradients_are",)
