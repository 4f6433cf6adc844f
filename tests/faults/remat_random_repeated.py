"""A deliberate fault; README.md says how it is read."""

PROMISE = "what draws random numbers does not run again without its state"
SOURCE = "shoestring/activations/remat/capture/joint.py"
OLD = "        return node in self._states or not is_random(node)"
NEW = "        return True"
TESTS = ("tests/activations/remat/test_emission.py::test_a_small_mask_is_kept_and_no_state",)
