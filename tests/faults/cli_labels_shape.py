"""A deliberate fault; README.md says how it is read."""

PROMISE = "a classifier's labels are one for each row"
SOURCE = "shoestring/cli/pretrained.py"
OLD = '        return {"labels": _Input(shape[:1], 0 if classes == 1 else classes)}\n'
NEW = '        return {"labels": _Input(shape, 0 if classes == 1 else classes)}\n'
TESTS = ("tests/cli/test_models.py::test_labels_follow_the_heads_problem",)
