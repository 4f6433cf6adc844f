"""A deliberate fault; README.md says how it is read."""

PROMISE = "the backward between two outputs of a model does not count as outside of it"
SOURCE = "shoestring/activations/remat/outside.py"
OLD = "        edges = _last(edges)\n"
NEW = ""
TESTS = (
    "tests/activations/remat/test_fit.py::test_the_backward_between_two_outputs_is_the_models_own",
)
