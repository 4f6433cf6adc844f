"""A deliberate fault; README.md says how it is read."""

PROMISE = "closing a released optimizer takes its hooks away"
SOURCE = "shoestring/optim/released.py"
OLD = """            handle.remove()
"""
NEW = """            pass
"""
TESTS = ("tests/optim/test_step.py::test_close_and_remove_take_the_hooks_away",)
