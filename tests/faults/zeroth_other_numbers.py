"""A deliberate fault; README.md says how it is read."""

PROMISE = "both sides of a step meet the same random numbers"
SOURCE = "shoestring/zeroth/same_numbers.py"
OLD = "            torch.set_rng_state(self._cpu)\n"
NEW = ""
TESTS = ("tests/zeroth/test_engine.py::test_both_sides_meet_the_same_random_numbers",)
