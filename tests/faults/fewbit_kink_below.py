"""A deliberate fault; README.md says how it is read."""

PROMISE = "the gradient of straight pieces is torch's at every kink"
SOURCE = "shoestring/activations/fewbit/pieces.py"
OLD = "(strictly and near.to(torch.float64) == exact)"
NEW = "(strictly and near.to(torch.float64) > exact)"
TESTS = (
    "tests/activations/fewbit/test_quantizer_functions.py::test_one_bit_is_exact_kinks_included",
    "tests/activations/fewbit/test_quantizer_functions.py::test_bands_anywhere_are_exact",
)
