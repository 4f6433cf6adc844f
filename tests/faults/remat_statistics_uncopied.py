"""A deliberate fault; README.md says how it is read."""

PROMISE = "batch normalisation runs again on the statistics it ran on"
SOURCE = "shoestring/activations/remat/capture/rewrites.py"
OLD = "    keep_what_changes(graph, outputs)\n    draws"
NEW = "    draws"
TESTS = (
    "tests/activations/remat/test_emission.py::test_statistics_are_copied_for_what_runs_again",
)
