"""A deliberate fault; README.md says how it is read."""

PROMISE = "batch normalisation runs again on the statistics it ran on"
SOURCE = "shoestring/activations/remat/rewrites.py"
OLD = "    keep_what_changes(graph, outputs)\n    draws"
NEW = "    draws"
TESTS = (
    "tests/activations/remat/test_emission.py::test_batch_normalisation_runs_again_on_the_statistics_it_ran_on",
)
