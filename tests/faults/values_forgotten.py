"""A deliberate fault; README.md says how it is read."""

PROMISE = "small integers keep their values in a step without data"
SOURCE = "shoestring/measure/tracing/tracer.py"
OLD = "if runs_on_values(func, args, kwargs, inputs):"
NEW = "if not inputs and runs_on_values(func, args, kwargs, inputs):"
TESTS = ("tests/measure/test_values.py::test_control_flow_on_integers_needs_no_data",)
