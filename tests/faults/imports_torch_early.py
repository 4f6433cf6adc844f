"""A deliberate fault; README.md says how it is read."""

PROMISE = "importing, listing and citing need no torch"
SOURCE = "shoestring/core/errors.py"
OLD = "from __future__ import annotations\n"
NEW = "from __future__ import annotations\n\nimport torch  # noqa: F401\n"
TESTS = ("tests/test_imports.py::test_torch_is_not_imported",)
