"""A deliberate fault; README.md says how it is read."""

PROMISE = "a checkpoint without the optimizer's state is not gone on from in silence"
SOURCE = "shoestring/integrations/zeroth.py"
OLD = 'for name in ("optimizer.pt", "scheduler.pt"):'
NEW = 'for name in ("scheduler.pt",):'
TESTS = ("tests/integrations/test_zeroth_trainer.py::test_another_run_is_not_gone_on_with",)
