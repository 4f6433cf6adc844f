"""A deliberate fault; README.md says how it is read."""

PROMISE = "inputs of a graph are freed after their last use"
SOURCE = "shoestring/activations/remat/capture/_torch.py"
OLD = "    module.graph.set_codegen(_BoxedCodeGen())\n"
NEW = ""
TESTS = ("tests/activations/remat/test_emission.py::test_the_simulated_peak_is_the_allocators",)
