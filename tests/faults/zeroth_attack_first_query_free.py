"""A deliberate fault; README.md says how it is read."""

PROMISE = "every forward of an image is counted, that of the unchanged one too"
SOURCE = "shoestring/zeroth/attacks/loop.py"
OLD = "asked = torch.ones(len(x), dtype=torch.int64, device=x.device)"
NEW = "asked = torch.zeros(len(x), dtype=torch.int64, device=x.device)"
TESTS = (
    "tests/zeroth/attacks/test_attack.py::test_balls_counts_and_early_exit",
    "tests/zeroth/attacks/test_attack.py::test_what_is_misclassified_succeeds_at_one_query",
)
