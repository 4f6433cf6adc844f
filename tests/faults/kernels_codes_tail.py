"""A deliberate fault; README.md says how it is read."""

PROMISE = "packed codes hold zeros beyond the last element"
SOURCE = "shoestring/kernels/codes_numba.py"
OLD = "        _clear(words, bits * full, bits, rest.size)\n\n\n@compiled\ndef multiply("
NEW = "\n\n@compiled\ndef multiply("
TESTS = ("tests/kernels/test_codes.py::test_three_bits_are_filled_up_with_zeros",)
