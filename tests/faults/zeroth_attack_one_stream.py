"""A deliberate fault; README.md says how it is read."""

PROMISE = "an image's result does not depend on the others in its batch"
SOURCE = "shoestring/zeroth/attacks/draws.py"
OLD = "keys = [signed(stream_key(seed, image)) for image in images]"
NEW = "keys = [signed(stream_key(seed, place)) for place, _ in enumerate(images)]"
TESTS = (
    "tests/zeroth/attacks/test_parts.py::test_an_image_has_its_numbers_in_any_company",
    "tests/zeroth/attacks/test_attack.py::test_an_image_is_attacked_the_same_in_any_batch",
)
