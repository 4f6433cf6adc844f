"""A deliberate fault; README.md says how it is read."""

PROMISE = "dispatch modes of threads that overlap leave none noted as being on"
SOURCE = "shoestring/measure/_torch.py"
OLD = "        every = [*own, *_MODES_ENTERED]\n"
NEW = "        return\n"
TESTS = (
    "tests/measure/test_modes.py::test_after_overlapping_modes_none_is_told_of",
    "tests/measure/test_modes.py::test_under_a_mode_that_ignores_compiled_code_it_is_compiled_once",
)
