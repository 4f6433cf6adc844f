"""Fewer points for a chart, without losing what one looks for in it."""

from __future__ import annotations

import math
from collections.abc import Sequence


def kept(values: Sequence[float], most: int) -> list[int]:
    """Return which points to draw: the ends, and the extremes of each stretch between.

    Args:
        values: finite numbers in order.
        most: about as many points are kept; all where there are no more.

    Returns:
        Their indices in order; the least and the greatest value are among them.

    Example:
        >>> kept([0, 5, 1, 2, -3, 4], 4)
        [0, 1, 4, 5]
    """
    count = len(values)
    if count <= most:
        return list(range(count))
    width = math.ceil(2 * count / max(most - 2, 2))
    chosen = {0, count - 1}
    for start in range(0, count, width):
        stretch = range(start, min(start + width, count))
        chosen.add(min(stretch, key=values.__getitem__))
        chosen.add(max(stretch, key=values.__getitem__))
    return sorted(chosen)
