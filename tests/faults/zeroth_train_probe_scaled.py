"""A deliberate fault; README.md says how it is read."""

PROMISE = "the probe's weights are those of the features as they are"
SOURCE = "shoestring/integrations/linear_probe.py"
OLD = "    weight /= spread.double()\n"
NEW = ""
TESTS = (
    "tests/integrations/test_zeroth_training.py::test_the_probe_is_the_optimum_of_its_objective",
)
