"""A deliberate fault; README.md says how it is read."""

PROMISE = "a metric is maximised in place of the loss"
SOURCE = "shoestring/integrations/zeroth_training.py"
OLD = '    return minus_accuracy if metric == "accuracy" else minus_f1'
NEW = "    return cross_entropies"
TESTS = ("tests/integrations/test_zeroth_training.py::test_a_metric_is_maximised",)
