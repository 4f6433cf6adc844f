"""A deliberate fault; README.md says how it is read."""

PROMISE = "dropout has the bits of torch's in backward"
SOURCE = "shoestring/activations/fewbit/dropout.py"
OLD = 'return mask.div_(1 - p) if like.device.type == "cpu" else mask.mul_(1 / (1 - p))'
NEW = 'return mask.mul_(1 - p) if like.device.type == "cpu" else mask.mul_(1 / (1 - p))'
TESTS = ("tests/activations/fewbit/test_dropout.py::test_all_is_torchs_bit_by_bit",)
