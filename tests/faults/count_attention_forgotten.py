"""A deliberate fault; README.md says how it is read."""

PROMISE = "attention on the CPU is counted, forward and backward"
SOURCE = "shoestring/measure/formulas/attention.py"
OLD = '            "aten::_scaled_dot_product_flash_attention_for_cpu",\n'
NEW = ""
TESTS = (
    "tests/measure/formulas/test_attention.py::test_forward_and_backward_on_the_cpu",
    "tests/measure/formulas/test_attention.py::test_the_case_that_torch_counts_as_nothing",
)
