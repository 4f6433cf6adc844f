"""A deliberate fault; README.md says how it is read."""

PROMISE = "a line of a table that stands for several modules has the sum of them"
SOURCE = "shoestring/measure/counting/lines.py"
OLD = "sums = {pattern: added(costs[path] for path in paths) for pattern, paths in members.items()}"
NEW = "sums = {pattern: costs[paths[0]] for pattern, paths in members.items()}"
TESTS = (
    "tests/measure/test_count_table.py::test_like_numbered_siblings_are_one_line_with_their_sum",
)
