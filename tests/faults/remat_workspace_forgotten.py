"""A deliberate fault; README.md says how it is read."""

PROMISE = "the peak counts what a kernel holds beside its results"
SOURCE = "shoestring/activations/remat/simulate.py"
OLD = "during.append(resident + node.workspace)"
NEW = "during.append(resident)"
TESTS = ("tests/activations/remat/test_emission.py::test_the_simulated_peak_is_the_allocators",)
