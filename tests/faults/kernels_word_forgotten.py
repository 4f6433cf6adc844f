"""A deliberate fault; README.md says how it is read."""

PROMISE = "every word of a stream is another one"
SOURCE = "shoestring/kernels/streams_eager.py"
OLD = "torch.arange(first + 1, first + count + 1"
NEW = "torch.arange(1, count + 1"
TESTS = ("tests/kernels/test_streams.py::test_signs_are_the_bits_of_the_words",)
