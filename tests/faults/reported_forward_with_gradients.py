"""A deliberate fault; README.md says how it is read."""

PROMISE = "a zeroth-order step keeps nothing for a backward"
SOURCE = "shoestring/measure/tracing/step.py"
OLD = "        with tracer, torch.no_grad():\n"
NEW = "        with tracer, torch.enable_grad():\n"
TESTS = ("tests/planner/test_reported.py::test_the_predicted_peak_of_zeroth_order_holds",)
