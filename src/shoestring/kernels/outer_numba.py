"""The loop over rows of a matrix and a product of signs that numba compiles; see `outer`."""

from __future__ import annotations

import numpy as np

from shoestring.kernels.streams_numba import Floats, compiled, settled_to


@compiled
def add_outer(
    x: Floats,
    u: Floats,
    v: Floats,
    scale: np.floating,
    radius: np.floating,
    first: int,
    last: int,
) -> None:
    """Add a multiple of the product of two vectors of signs to some rows, and settle them.

    Args:
        x: a matrix; changed in place.
        u: a sign for each row.
        v: a sign for each column.
        scale: the factor.
        radius: that x is settled for; 0 for none.
        first: row to begin with.
        last: row to end before.
    """
    for i in range(first, last):
        step = scale * u[i]
        if radius > 0:
            for j in range(v.size):
                x[i, j] = settled_to(x[i, j] + step * v[j], radius)
        else:
            for j in range(v.size):
                x[i, j] += step * v[j]
