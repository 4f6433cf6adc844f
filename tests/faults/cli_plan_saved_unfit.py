"""A deliberate fault; README.md says how it is read."""

PROMISE = "an infeasible plan is shown and not saved"
SOURCE = "shoestring/cli/plan.py"
OLD = """    sys.stdout.flush()
    failed"""
NEW = """    sys.stdout.flush()
    if out is not None:
        plans[0].save(out)
    failed"""
TESTS = (
    "tests/cli/test_bad_input.py::test_a_budget_below_the_least_reachable_has_code_3_and_a_table",
)
