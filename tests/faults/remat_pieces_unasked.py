"""A deliberate fault; README.md says how it is read."""

PROMISE = "only what is asked for is run"
SOURCE = "shoestring/activations/remat/capture/pieces.py"
OLD = "            if will_run("
NEW = "            if not will_run("
TESTS = (
    "tests/activations/remat/test_pieces.py::test_autograd_does_with_them_what_it_does_without_a_compiler",
)
