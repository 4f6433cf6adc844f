"""Adds ``s a_i b_j H_ij`` to a matrix, H being part of a Hadamard matrix and a, b random signs."""

from __future__ import annotations

import functools
import types

import numpy as np
import torch

from shoestring.kernels.hadamard import core, order
from shoestring.kernels.streams import signs, stream_key

_CHUNK = 1 << 16


class HadamardSigns:
    """The signs ``a_i b_j H[row_i, column_j]``; zero where a place is -1.

    Args:
        rows: place in H of each row of the result.
        cols: place in H of each column.
        size: order of H.
        key: of the signs a and b.
    """

    def __init__(self, rows: torch.Tensor, cols: torch.Tensor, size: int, key: int) -> None:
        made = order(size)
        assert made is not None
        self._rows, self._cols = rows, cols
        self._core, self._power = core(made.core), made.power
        self._down = signs(stream_key(key, 0), len(rows))
        self._across = signs(stream_key(key, 1), len(cols))

    def add_to(self, matrix: torch.Tensor, scale: float) -> None:
        """Add a multiple of the signs to a matrix, in place.

        Args:
            matrix: as many rows and columns as there are places.
            scale: the factor.
        """
        wide = matrix.dtype in (torch.float32, torch.float64)
        loops = _loops() if matrix.device.type == "cpu" and wide else None
        if loops is None:
            self._add_eagerly(matrix, scale)
            return
        array = matrix.detach().numpy()
        places = (self._rows.numpy(), self._cols.numpy(), self._down.numpy(), self._across.numpy())
        loops.add_hadamard(array, *places, self._core, self._power, array.dtype.type(scale))

    def _add_eagerly(self, matrix: torch.Tensor, scale: float) -> None:
        step = max(1, _CHUNK // max(1, len(self._cols)))
        table = torch.from_numpy(np.array(self._core)).to(matrix.device)
        rows, cols = self._rows.to(matrix.device), self._cols.to(matrix.device)
        down, across = self._down.to(matrix), self._across.to(matrix)
        parity = torch.from_numpy(_parities(1 << self._power)).to(matrix)
        low = (1 << self._power) - 1
        for begin in range(0, len(rows), step):
            r = rows[begin : begin + step].unsqueeze(1)
            found = table[r >> self._power, cols >> self._power] * parity[r & cols & low]
            found *= down[begin : begin + step].unsqueeze(1) * across * ((r >= 0) & (cols >= 0))
            matrix[begin : begin + step].add_(found, alpha=scale)


def _parities(count: int) -> np.ndarray[tuple[int], np.dtype[np.int8]]:
    """Return 1 for each number with an even count of bits, -1 for the others."""
    found = np.ones(count, np.int8)
    width = 1
    while width < count:
        found[width : 2 * width] = -found[:width]
        width *= 2
    return found


@functools.cache
def _loops() -> types.ModuleType | None:
    """Import what numba compiles; None where numba cannot be imported."""
    try:
        from shoestring.kernels import hadamard_numba
    except ImportError:
        return None
    return hadamard_numba
