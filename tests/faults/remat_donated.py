"""A deliberate fault; README.md says how it is read."""

PROMISE = "backward runs through one forward as often as is asked"
SOURCE = "shoestring/activations/remat/capture/_torch.py"
OLD = "        context.fw_metadata.bw_donated_idxs = []"
NEW = "        pass"
TESTS = (
    "tests/activations/remat/test_pieces.py::test_autograd_does_with_them_what_it_does_without_a_compiler",
)
