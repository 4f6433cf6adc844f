"""A deliberate fault; README.md says how it is read."""

PROMISE = "torch's own log of a failed step does not reach the terminal"
SOURCE = "shoestring/cli/profile.py"
OLD = "        logging.disable(logging.ERROR)\n"
NEW = ""
TESTS = (
    "tests/cli/test_bad_input.py::test_a_step_that_fails_is_told_once_though_torch_would_log_it",
)
