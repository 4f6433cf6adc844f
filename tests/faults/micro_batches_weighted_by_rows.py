"""A deliberate fault; README.md says how it is read."""

PROMISE = "micro-batches are weighted by their number of loss terms"
SOURCE = "shoestring/activations/micro_batches.py"
OLD = '    if weight_by == "rows":\n        return _rows(part)'
NEW = "    if weight_by:\n        return _rows(part)"
TESTS = ("tests/activations/test_micro_batches.py::test_only_the_right_weighting_is_exact",)
