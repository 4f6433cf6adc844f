"""A deliberate fault; README.md says how it is read."""

PROMISE = "a zeroth-order step is taken in evaluation mode"
SOURCE = "shoestring/integrations/zeroth.py"
OLD = "        model.eval()\n        batch = "
NEW = "        model.train()\n        batch = "
TESTS = ("tests/integrations/test_zeroth_trainer.py::test_it_steps_as_a_plain_loop",)
