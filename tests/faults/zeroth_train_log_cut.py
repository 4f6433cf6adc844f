"""A deliberate fault; README.md says how it is read."""

PROMISE = "the log beside a checkpoint has all steps of the run"
SOURCE = "shoestring/integrations/zeroth.py"
OLD = "return log if self._earlier is None else _joined(self._earlier, log)"
NEW = "return log"
TESTS = (
    "tests/integrations/test_zeroth_trainer.py::test_it_goes_on_bit_for_bit_and_its_log_has_all_steps",
)
