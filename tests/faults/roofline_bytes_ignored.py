"""A deliberate fault; README.md says how it is read."""

PROMISE = "an operation that moves much for what it computes takes as long as its bytes do"
SOURCE = "shoestring/core/machine.py"
OLD = "return Price(work.flops / rate, moved / self.bandwidth, self.op_cost(phase))"
NEW = "return Price(work.flops / rate, 0.0, self.op_cost(phase))"
TESTS = (
    "tests/measure/test_roofline.py::test_sums_by_hand",
    "tests/measure/test_roofline.py::test_a_plain_machine",
)
