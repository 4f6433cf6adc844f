"""A deliberate fault; README.md says how it is read."""

PROMISE = "explain_oom takes its hook away"
SOURCE = "shoestring/planner/oom.py"
OLD = """    finally:
        handle.remove()
"""
NEW = """    finally:
        pass
"""
TESTS = ("tests/planner/test_oom.py::test_without_an_error_nothing_is_changed_kept_or_computed",)
