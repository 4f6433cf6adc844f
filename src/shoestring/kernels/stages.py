"""What happens to a tensor between the terms that one pass adds to it."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import torch

_FRACTION_BITS: Final = {torch.float32: 23, torch.float64: 52}
_DIGITS: Final = 6
"""Least binary digits of a radius after its first, so that it is right to 1 %."""
_HEADROOM: Final = 2
"""By how much a tensor may grow until its radius must be snapped anew."""


class Stages(NamedTuple):
    """What is done to a tensor between the terms that are added to it.

    Attributes:
        decay: what it is multiplied with.
        before: how many terms are added before that.
        radius: where above 0, the tensor is settled: rounded so that this radius can be added and
            taken away again, with either sign, without any rounding.
        after: how many terms, the last ones, are added after that.
    """

    decay: float = 1.0
    before: int = 0
    radius: float = 0.0
    after: int = 0


NOTHING: Final = Stages()
"""Only the terms are added."""


def grid(radius: float, tensor: torch.Tensor, *, reach: float = 1.0) -> float:
    """Return a spacing: its multiples are added to a settled tensor, and taken away, unrounded.

    It is that of floats at the tensor's largest magnitude; but no more than 1/64 of the radius, so
    that what is rounded to it is right to 1 %. So in float32 entries beyond 2^16 radii, and in
    float64 beyond 2^45, may come back rounded.

    Args:
        radius: what is added, about; above 0.
        tensor: to be settled.
        reach: how many radii are added at most.

    Returns:
        A power of two; 0 for a tensor of fewer bits than float32, or one that is not finite.
    """
    bits = _FRACTION_BITS.get(tensor.dtype)
    if bits is None or tensor.numel() == 0:
        return 0.0
    most = _HEADROOM * (largest(tensor) + 4 * reach * radius)
    if not 0 < most < math.inf:
        return 0.0
    finest = math.floor(math.log2(radius)) - _DIGITS
    return float(2.0 ** min(math.ceil(math.log2(most)) - bits, finest))


def largest(tensor: torch.Tensor) -> float:
    """Return the largest magnitude of a tensor's entries.

    Args:
        tensor: of a floating dtype, not empty.
    """
    low, high = (float(end) for end in tensor.detach().aminmax())
    return max(-low, high)


def room(spacing: float, dtype: torch.dtype) -> float:
    """Return the magnitude up to which floats are no farther apart than a spacing.

    Args:
        spacing: of a grid; with 0 there is no bound.
        dtype: of the floats.
    """
    bits = _FRACTION_BITS.get(dtype)
    return spacing * 2.0 ** (bits + 1) if bits and spacing else math.inf


def snapped(radius: float, tensor: torch.Tensor) -> float:
    """Return the multiple of the grid next to a radius; the radius itself where there is no grid.

    Args:
        radius: the one that is wanted, above 0.
        tensor: to be settled.

    Example:
        >>> snapped(0.1, torch.tensor([1.0, -3.0]))
        0.10000038146972656
    """
    spacing = grid(radius, tensor)
    return round(radius / spacing) * spacing if spacing else radius
