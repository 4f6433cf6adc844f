"""A deliberate fault; README.md says how it is read."""

PROMISE = "what a generator of one's own drew is kept"
SOURCE = "shoestring/activations/remat/eager/tape.py"
OLD = (
    "    return not any(isinstance(value, torch.Generator) for value in (*args, *kwargs.values()))"
)
NEW = "    return True"
TESTS = (
    "tests/activations/test_rematerialisation.py::test_what_a_generator_of_ones_own_drew_is_kept",
)
