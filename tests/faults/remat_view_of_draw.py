"""A deliberate fault; README.md says how it is read."""

PROMISE = "what is read through a view of a dropout is its result made from the mask"
SOURCE = "shoestring/activations/remat/capture/rewrites.py"
OLD = 'again.meta["val"] = parts[0].meta["val"]'
NEW = 'again.meta["val"] = torch.empty_like(parts[0].meta["val"])'
TESTS = (
    "tests/activations/remat/test_emission.py::test_what_crosses_the_border_is_what_was_chosen",
)
