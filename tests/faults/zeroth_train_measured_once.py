"""A deliberate fault; README.md says how it is read."""

PROMISE = "a run that was killed before its first checkpoint goes on bit for bit"
SOURCE = "shoestring/integrations/zeroth_training.py"
OLD = "    if not anew and Rates.of(run.data) is not None:"
NEW = "    if Rates.of(run.data) is not None:"
TESTS = ("tests/integrations/test_zeroth_training.py::test_it_goes_on_bit_for_bit",)
