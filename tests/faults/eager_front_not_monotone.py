"""A deliberate fault; README.md says how it is read."""

PROMISE = "each choice is smaller than the one before it"
SOURCE = "shoestring/activations/remat/eager/front.py"
OLD = "            if less or choice.peak < WORTH * peak:"
NEW = "            if True:"
TESTS = ("tests/activations/remat/eager/test_front.py::test_figures_on_a_network",)
