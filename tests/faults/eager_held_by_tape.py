"""A deliberate fault; README.md says how it is read."""

PROMISE = "what is not kept goes in the forward"
SOURCE = "shoestring/activations/remat/eager/tape.py"
OLD = "        self._places[place.address] = place\n"
NEW = "        self._places[place.address] = place\n        value.base = base\n"
TESTS = ("tests/activations/remat/eager/test_traps.py::test_what_is_not_kept_goes_in_the_forward",)
