"""A deliberate fault; README.md says how it is read."""

PROMISE = "candidates are judged by all parts of a batch"
SOURCE = "shoestring/zeroth/conservative.py"
OLD = "losses = [number(part.ask()) for part in parts]"
NEW = "losses = [number(parts[0].ask())] * len(parts)"
TESTS = ("tests/zeroth/test_conservative.py::test_all_parts_judge",)
