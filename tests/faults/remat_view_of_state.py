"""A deliberate fault; README.md says how it is read."""

PROMISE = "what is read through a view of a buffer that changes is its copy"
SOURCE = "shoestring/activations/remat/capture/rewrites.py"
OLD = """\
        copy.meta["val"] = value  # whose storage the views of it share
        changed.meta["val"] = torch.empty_like(value)
"""
NEW = """\
        copy.meta["val"] = torch.empty_like(value)
"""
TESTS = (
    "tests/activations/remat/test_emission.py::test_what_crosses_the_border_is_what_was_chosen",
)
