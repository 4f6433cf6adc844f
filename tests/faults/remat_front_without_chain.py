"""A deliberate fault; README.md says how it is read."""

PROMISE = "a front reaches as low as rotor does"
SOURCE = "shoestring/activations/remat/front_search.py"
OLD = """\
    _add_chain(best, until)
    return"""
NEW = "    return"
TESTS = (
    "tests/activations/remat/test_pareto.py::test_it_reaches_as_low_as_any_solver_and_no_hull_point_beats_it",
)
