"""A deliberate fault; README.md says how it is read."""

PROMISE = "casts of mixed precision are not made a second time"
SOURCE = "shoestring/activations/remat/eager/_torch.py"
OLD = "torch.enable_grad(), torch._C._DisableAutocast(), torch._C"
NEW = "torch.enable_grad(), torch._C"
TESTS = (
    "tests/activations/remat/eager/test_traps.py::test_a_backward_within_mixed_precision_computes_again_as_the_forward_did",
)
