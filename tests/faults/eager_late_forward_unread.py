"""A deliberate fault; README.md says how it is read."""

PROMISE = "a part of the forward that runs in backward reads what is computed again"
SOURCE = "shoestring/activations/remat/eager/predict.py"
OLD = "_LATE: Final = frozenset({Phase.BACKWARD, Phase.RECOMPUTE})\n"
NEW = "_LATE: Final = frozenset({Phase.BACKWARD})\n"
TESTS = (
    "tests/activations/remat/eager/test_predict.py::test_the_timeline_is_that_of_every_event",
    "tests/activations/test_rematerialisation.py::test_predicted_beside_a_head_in_chunks",
)
