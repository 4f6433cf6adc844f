"""A deliberate fault; README.md says how it is read."""

PROMISE = "a view is taken of the value computed last"
SOURCE = "shoestring/activations/remat/capture/emission.py"
OLD = "                self.there.pop(view, None)"
NEW = "                pass"
TESTS = ("tests/activations/remat/test_emission.py::test_the_simulated_peak_is_the_allocators",)
