"""A deliberate fault; README.md says how it is read."""

PROMISE = "an entry comes back to the last bit"
SOURCE = "shoestring/zeroth/entries.py"
OLD = "            tensor[index] = here\n"
NEW = "            tensor[index] = (behind.double() + eps).to(here.dtype)\n"
TESTS = ("tests/zeroth/test_marina.py::test_entries_come_back_to_the_last_bit",)
