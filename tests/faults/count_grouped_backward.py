"""A deliberate fault; README.md says how it is read."""

PROMISE = "the gradient of a grouped convolution's weight pairs only channels of one group"
SOURCE = "shoestring/measure/formulas/convolutions.py"
OLD = "macs = _taps(args[1] if flag else grad, args[weight]) * (int(wanted[0]) + int(wanted[1]))"
NEW = (
    "macs = _taps(args[1] if flag else grad, args[weight])"
    " * (int(wanted[0]) + int(wanted[1]) * (args[9] if len(args) > 9 else 1))"
)
TESTS = (
    "tests/measure/formulas/test_convolutions.py::test_backward_is_twice_forward_for_any_groups",
    "tests/measure/formulas/test_convolutions.py::test_convolution_and_its_gradients",
)
