"""The loop over signs of a Hadamard matrix that numba compiles; imported on first use."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from shoestring.kernels.streams_numba import Floats, compiled, inlined

Places: TypeAlias = npt.NDArray[np.int64]
Table: TypeAlias = npt.NDArray[np.int8]


@inlined
def _sign(number: int) -> int:
    """Return -1 for a number with an odd count of bits, else 1."""
    number ^= number >> 16
    number ^= number >> 8
    number ^= number >> 4
    number ^= number >> 2
    number ^= number >> 1
    return 1 - 2 * (number & 1)


@compiled
def _add_row(
    x: Floats,
    r: int,
    cols: Places,
    across: Floats,
    table: Table,
    power: int,
    factor: np.floating,
) -> None:
    """Add one row of signs, element by element."""
    for e in range(cols.size):
        c = cols[e]
        if c >= 0:
            s = table[r >> power, c >> power] * _sign(r & c & ((1 << power) - 1))
            x[e] += factor * x.dtype.type(s * across[e])


@compiled
def add_hadamard(
    x: Floats,
    rows: Places,
    cols: Places,
    down: Floats,
    across: Floats,
    table: Table,
    power: int,
    scale: np.floating,
) -> None:
    """Add ``scale down_i across_j H[rows_i, cols_j]``; nothing where a place is -1.

    Args:
        x: changed in place.
        rows: place in H of each row.
        cols: place in H of each column.
        down: a sign for each row.
        across: a sign for each column.
        table: the core of H.
        power: how often it is doubled.
        scale: in the dtype of x.
    """
    low = (1 << power) - 1
    width = min(64, 1 << power)
    pattern = np.empty((width, width), across.dtype)  # the signs of the last bits
    for i in range(width):
        for j in range(width):
            pattern[i, j] = _sign(i & j)
    in_order = True
    for e in range(cols.size):
        in_order = in_order and cols[e] == e
    for i in range(x.shape[0]):
        r = rows[i]
        if r < 0:
            continue
        factor = scale * x.dtype.type(down[i])
        if not in_order:
            _add_row(x[i], r, cols, across, table, power, factor)
            continue
        last = pattern[r % width]
        for begin in range(0, cols.size, width):
            s = table[r >> power, begin >> power] * _sign(r & begin & low)
            group = factor * x.dtype.type(s)
            for e in range(begin, min(begin + width, cols.size)):
                x[i, e] += group * (last[e - begin] * across[e])
