"""A deliberate fault; README.md says how it is read."""

PROMISE = "a view costs nothing beside the storage it looks at"
SOURCE = "shoestring/activations/remat/capture/joint.py"
OLD = "        if results and all(aliases):\n            return Role.VIEW\n"
NEW = ""
TESTS = ("tests/activations/remat/test_emission.py::test_the_simulated_peak_is_the_allocators",)
