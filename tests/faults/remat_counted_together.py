"""A deliberate fault; README.md says how it is read."""

PROMISE = "how many blocks and models of a class were captured before does not matter"
SOURCE = "shoestring/activations/remat/capture/_torch.py"
OLD = "        call.__code__ = call.__code__.replace()\n"
NEW = ""
TESTS = (
    "tests/activations/remat/test_fit.py"
    "::test_blocks_and_models_of_one_class_are_captured_however_many",
)
