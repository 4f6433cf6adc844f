"""Thinned for drawing, a curve keeps its ends and extremes."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from shoestring.report.thin import kept

FLAT = [0.0] * 20


@example([*FLAT, 9.0, *FLAT, -9.0, *FLAT], 8)
@given(st.lists(st.floats(-1e9, 1e9), max_size=300), st.integers(4, 100))
def test_ends_and_extremes_are_kept(values: list[float], most: int) -> None:
    points = kept(values, most)
    assert points == sorted(set(points))
    assert len(points) <= max(most, 2) + 2
    if len(values) <= most:
        assert points == list(range(len(values)))
    if values:
        assert points[0] == 0
        assert points[-1] == len(values) - 1
        drawn = [values[i] for i in points]
        assert (min(drawn), max(drawn)) == (min(values), max(values))
