"""The bumps that the Square Attack searches with in l2."""

from __future__ import annotations

import functools

import torch


def hill(height: int, width: int) -> torch.Tensor:
    r"""Return a hill over a rectangle, which falls off with the distance from its middle.

    .. math::

        \eta_{rs} = \sum_{k=0}^{M(r,s)} \frac{1}{(n + 1 - k)^2}, \qquad
        M(r,s) = n - \max(|r - \lfloor h/2 \rfloor - 1|, |s - \lfloor w/2 \rfloor - 1|)

    With r and s from 1; n is as large as the rectangle needs.

    Args:
        height: h, of the rectangle.
        width: w.

    Returns:
        In float64, ``[height, width]``, of length 1.
    """
    rows = (torch.arange(height) - height // 2).abs()
    columns = (torch.arange(width) - width // 2).abs()
    distance = torch.maximum(rows.unsqueeze(1), columns.unsqueeze(0))
    terms = 1 / torch.arange(1, max(height, width) // 2 + 2, dtype=torch.float64).square()
    tails = terms.flip(0).cumsum(0).flip(0)
    found = tails[distance]
    return found / found.square().sum().sqrt().clamp(min=1e-12)


@functools.lru_cache(maxsize=64)
def bump(side: int) -> torch.Tensor:
    """Return two hills of opposite sign, one above the other, in float64 and of length 1.

    Args:
        side: of the square.
    """
    half = side // 2
    both = torch.cat([hill(half, side), -hill(side - half, side)])
    return both / both.square().sum().sqrt()
