r"""Random matrices that make many rows into few, so that products of rows are kept on average.

A sketch is a matrix :math:`S` of m rows and N columns with :math:`E[S^T S] = I`. So for any two
matrices of N rows :math:`(S g)^T (S X)` is :math:`g^T X` on average. It is named by a number, its
seed: whoever has that makes the same matrix again, a part at a time.

Source: Bershatsky et al., Memory-efficient backpropagation through large linear layers (2022);
Ailon, Chazelle, The fast Johnson-Lindenstrauss transform (2009), for signs and Hadamard matrices.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import torch

from shoestring.kernels.hadamard import core
from shoestring.kernels.streams import add_signs_, stream_key

MOST: Final = 1 << 20
"""Entries of a sketch, or of rows that are turned, that are held at a time."""

_CORES: Final = (1, 12, 20, 28)
_FIRST, _SECOND = 0, 1  # streams of one seed: what is drawn first, and what is drawn beside it


def sketched(rows: torch.Tensor, *, size: int, kind: str, seed: int) -> torch.Tensor:
    r"""Return :math:`S X`.

    Args:
        rows: X, ``[N, d]``.
        size: m, rows of the result; at most N.
        kind: ``rademacher``, ``gaussian``, ``srht`` or ``rows``.
        seed: of the sketch, from 0 to 2^64 - 1.

    Returns:
        ``[m, d]``, in the dtype of the rows.

    Example:
        >>> eye = torch.eye(9)
        >>> s = sketched(eye, size=4, kind="rows", seed=0)  # S itself: some rows of N are taken
        >>> (s * s).sum(1).tolist()  # with the weight N / m
        [2.25, 2.25, 2.25, 2.25]
    """
    return _KINDS[kind](rows, size, seed)


def importance(rows: torch.Tensor, *, size: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Return which rows stand for all, and their weights: row i with probability as its length.

    With :math:`p_i = \|x_i\| / \sum_j \|x_j\|` row i has the weight :math:`1 / \sqrt{m p_i}` in the
    sketch. Rows are drawn with replacement; a row of zeros never is, and is not missed.

    Args:
        rows: X, ``[N, d]``.
        size: m, how many are drawn.
        seed: of the draw, from 0 to 2^64 - 1.

    Returns:
        Indices, ``[m]`` int64, and weights, ``[m]`` float32 (float64 for float64).

    Example:
        >>> picks, weights = importance(torch.tensor([[0.0], [2.0]]), size=4, seed=0)
        >>> picks.tolist(), weights.tolist()
        ([1, 1, 1, 1], [0.5, 0.5, 0.5, 0.5])
    """
    wide = _wide(rows.dtype)
    lengths = torch.linalg.vector_norm(rows, dim=1, dtype=wide).double()
    ends = lengths.cumsum(0)
    total = ends[-1]
    draws = torch.rand(
        size, generator=_generator(seed, rows.device), dtype=torch.float64, device=rows.device
    )
    # right=True: a row of length 0 ends where it begins, and no number falls into it. Not a number
    # anywhere makes a weight so too: it is not lost.
    picks = torch.searchsorted(ends, draws * total, right=True).clamp_(max=len(rows) - 1)
    weights = (total / (size * lengths[picks])).sqrt()
    return picks, torch.where(total == 0, 0.0, weights).to(wide)


def padded(count: int) -> int:
    """Return the order of the Hadamard matrix that takes some rows, the others being zero.

    Args:
        count: of the rows, at least 1.

    Example:
        >>> padded(16), padded(17), padded(21)
        (16, 20, 24)
    """
    return min(width << power for width, power in _orders(count))


# --- one function for each kind ----------------------------------------------------------


def _dense(rows: torch.Tensor, size: int, draw: Callable[[int, int], torch.Tensor]) -> torch.Tensor:
    """Multiply by a sketch that is drawn a few columns at a time."""
    # Half precision ends at 65504, which sums of scaled gradients pass.
    inner = torch.float32 if rows.dtype is torch.float16 else rows.dtype
    found = rows.new_zeros(size, rows.shape[1], dtype=_wide(rows.dtype))
    step = max(1, MOST // size)
    for part, begin in enumerate(range(0, len(rows), step)):
        here = rows[begin : begin + step].to(inner)
        found += draw(part, len(here)).to(inner) @ here
    return found.mul_(size**-0.5).to(rows.dtype)


def _rademacher(rows: torch.Tensor, size: int, seed: int) -> torch.Tensor:
    def draw(part: int, count: int) -> torch.Tensor:
        made = torch.zeros(size, count, dtype=torch.float32, device=rows.device)
        add_signs_(made, [stream_key(seed, _FIRST, part)], [1.0])
        return made

    return _dense(rows, size, draw)


def _gaussian(rows: torch.Tensor, size: int, seed: int) -> torch.Tensor:
    generator = _generator(seed, rows.device)
    # In one dtype whatever the rows have: they and their gradients may differ.
    return _dense(
        rows,
        size,
        lambda part, count: torch.randn(size, count, generator=generator, device=rows.device),
    )


def _uniform(rows: torch.Tensor, size: int, seed: int) -> torch.Tensor:
    picks = torch.randperm(len(rows), generator=_generator(seed, rows.device), device=rows.device)
    scale = math.sqrt(len(rows) / size)
    return rows.index_select(0, picks[:size]).mul_(scale)


def _srht(rows: torch.Tensor, size: int, seed: int) -> torch.Tensor:
    """Signs, a Hadamard matrix, and m of its rows; some columns of the rows at a time."""
    count, width = rows.shape
    wide = _wide(rows.dtype)
    order, power = min(_orders(count), key=lambda made: made[0] << made[1])
    total = order << power
    turn = torch.zeros(count, 1, dtype=wide, device=rows.device)
    add_signs_(turn, [stream_key(seed, _SECOND)], [1.0])
    generator = _generator(seed, rows.device)
    picks = torch.randperm(total, generator=generator, device=rows.device)[:size]
    table = torch.tensor(core(order), dtype=wide, device=rows.device)
    found = rows.new_empty(size, width)
    step = max(1, MOST // total)
    for begin in range(0, width, step):
        here = rows[:, begin : begin + step]
        turned = here.new_zeros(total, here.shape[1], dtype=wide)
        torch.mul(here, turn, out=turned[:count])
        turned = _transformed(turned, table, power).index_select(0, picks)
        found[:, begin : begin + step] = turned.mul_(size**-0.5)
    return found


def _transformed(rows: torch.Tensor, table: torch.Tensor, power: int) -> torch.Tensor:
    """Return a Hadamard matrix times rows: the product of a table and ``power`` butterflies."""
    total, width = rows.shape
    for k in range(power):
        pairs = rows.view(total >> (k + 1), 2, 1 << k, width)
        upper, lower = pairs[:, 0], pairs[:, 1]
        apart = upper - lower
        upper += lower
        lower.copy_(apart)
    if len(table) == 1:
        return rows
    return (table @ rows.view(len(table), -1)).view(total, width)


def _orders(count: int) -> list[tuple[int, int]]:
    """Return orders ``core 2^power`` that take some rows, as core and power."""
    return [(width, (-(-count // width) - 1).bit_length()) for width in _CORES]


def _generator(seed: int, device: torch.device) -> torch.Generator:
    return torch.Generator(device).manual_seed(stream_key(seed, _FIRST))


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype is torch.float64 else torch.float32


_KINDS: Final[dict[str, Callable[[torch.Tensor, int, int], torch.Tensor]]] = {
    "rademacher": _rademacher,
    "gaussian": _gaussian,
    "srht": _srht,
    "rows": _uniform,
}
KINDS: Final = (*_KINDS, "importance")
"""Names of the sketches."""
