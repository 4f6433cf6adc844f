"""A deliberate fault; README.md says how it is read."""

PROMISE = "one graph under DistributedDataParallel"
SOURCE = "shoestring/activations/remat/capture/_torch.py"
OLD = "patch(optimize_ddp=False)"
NEW = "patch(optimize_ddp=True)"
TESTS = (
    "tests/activations/remat/test_processes.py::test_gradients_are_those_of_the_plain_wrapper",
)
