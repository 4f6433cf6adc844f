"""The loops that find a derivative from an activation's output, compiled by numba."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from shoestring.kernels.streams_numba import Floats, compiled

_PART: Final = 1024
"""Elements whose places are found before any is looked up: apart, the first loop has vectors."""


@compiled
def _places(
    place: Floats,
    y: Floats,
    packed: npt.NDArray[np.uint8],
    cells: np.floating,
    by_lowest: np.floating,
    lowest: np.floating,
    by_widest: np.floating,
) -> None:
    """Find where in the table the derivatives of some outputs are."""
    one, zero = cells / cells, cells - cells
    for byte in range(packed.size):
        part = place[8 * byte : 8 * byte + 8]
        for bit in range(8):
            part[bit] = (packed[byte] >> np.uint8(bit)) & np.uint8(1)
    for i in range(y.size):
        right = place[i] > zero
        depth = y[i] * by_lowest
        depth = depth if depth > zero else zero  # noqa: FURB136 (max is no vector operation here)
        left_share = one - np.sqrt(depth)
        share = (y[i] - lowest) * by_widest
        share = share if right else left_share
        share = share if share > zero else zero  # noqa: FURB136
        share = share if share < one else one  # noqa: FURB136
        start = cells + one if right else zero
        place[i] = start + cells * np.sqrt(share)


@compiled
def multiply(
    out: Floats,
    grad: Floats,
    y: Floats,
    packed: npt.NDArray[np.uint8],
    table: Floats,
    cells: np.floating,
    by_lowest: np.floating,
    lowest: np.floating,
    by_widest: np.floating,
    first: int,
    last: int,
) -> None:
    """Multiply what came from above with the derivative, for some blocks of 64 elements.

    Args:
        out: what is written.
        grad: the gradient of the output.
        y: the output.
        packed: one bit for each element: whether the input was right of the minimum.
        table: as `branches.Branches` has it.
        cells: of each half of the table.
        by_lowest: 1 over the output at the minimum.
        lowest: the output at the minimum; below 0.
        by_widest: 1 over the distance of the right half's end from the lowest output.
        first: block to begin with.
        last: block to end before.
    """
    place = np.empty(_PART, y.dtype)
    blocks = _PART // 64
    for block in range(first, last, blocks):
        upto = min(last, block + blocks)
        start, stop = 64 * block, min(64 * upto, y.size)
        bits = packed[8 * block : 8 * upto]
        _places(place, y[start:stop], bits, cells, by_lowest, lowest, by_widest)
        for i in range(stop - start):
            cell = np.uint32(place[i])
            below = table[cell]
            rise = (table[cell + np.uint32(1)] - below) * (place[i] - cell)
            out[start + i] = grad[start + i] * (below + rise)
