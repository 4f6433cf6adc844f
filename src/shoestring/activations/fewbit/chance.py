"""Codes that are drawn: between the two nearest levels, so that the mean is the derivative."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch

from shoestring.activations.fewbit.branches import flattened
from shoestring.activations.fewbit.functions import Function
from shoestring.activations.fewbit.integrals import Floats, Ints, samples
from shoestring.activations.fewbit.weights import Weight
from shoestring.kernels import codes as kernels
from shoestring.kernels.streams_eager import noise

_NUM_VALUES: Final = 512
_CHUNK: Final = 1 << 16


@functools.lru_cache(maxsize=256)
def levels(
    function: Function, bits: int, weight: Weight, domain: tuple[float, float]
) -> tuple[float, ...]:
    r"""Return the levels between which codes are best drawn.

    Drawn between :math:`l \le v \le u`, the derivative v is right in the mean with variance
    :math:`(v - l)(u - v)`. So the levels begin and end with the derivative's own range, and those
    between minimise

    .. math::

        \sum_k \int_{y_k \le f'(x) \le y_{k+1}} (f'(x) - y_k)(y_{k+1} - f'(x)) \, w(x) \, dx

    exactly among 512 values, by dynamic programming.

    Args:
        function: f.
        bits: of a code; there are 2^bits levels.
        weight: w.
        domain: over which the integral goes.
    """
    sampled = samples(function, weight, domain)
    order = np.argsort(sampled.nodes, axis=None)
    values, masses = sampled.nodes.ravel()[order], sampled.masses.ravel()[order]
    low, high = float(sampled.values.min()), float(sampled.values.max())
    at = _candidates(values, masses, low, high)
    count = 2**bits
    if len(at) <= count:
        return tuple(np.concatenate([at, np.full(count - len(at), at[-1])]).tolist())
    costs = _costs(values, masses, at)
    best, choices = costs[0].copy(), list[Ints]()
    for _ in range(count - 2):
        total = best[:, None] + costs
        choice = total.argmin(axis=0)
        best = total[choice, np.arange(len(at))]
        choices.append(choice)
    chosen = [len(at) - 1]
    for choice in reversed(choices):
        chosen.append(int(choice[chosen[-1]]))
    chosen.append(0)
    return tuple(at[chosen[::-1]].tolist())


def _candidates(values: Floats, masses: Floats, low: float, high: float) -> Floats:
    """Return values to choose levels from: half of them by their weight, half evenly."""
    inside = np.linspace(0, 1, _NUM_VALUES // 2)
    shares = np.cumsum(masses) / masses.sum()
    by_weight = values[np.minimum(np.searchsorted(shares, inside), len(values) - 1)]
    return np.unique(np.concatenate([by_weight, low + (high - low) * inside]).clip(low, high))


def _costs(values: Floats, masses: Floats, at: Floats) -> Floats:
    """Return the variance between each two levels; infinite where they do not ascend."""
    ends = np.searchsorted(values, at, side="right")
    powers = np.stack([masses, masses * values, masses * values * values])
    sums = np.concatenate([np.zeros((3, 1)), powers.cumsum(axis=1)], axis=1)[:, ends]
    mass, first, second = sums[:, None, :] - sums[:, :, None]
    low, high = at[:, None], at[None, :]
    costs: Floats = np.maximum((low + high) * first - low * high * mass - second, 0.0)
    costs[np.tril_indices(len(at))] = np.inf
    return costs


def encode(
    x: torch.Tensor,
    key: int,
    function: Function,
    levels: tuple[float, ...],
    *,
    order: Sequence[int] = (),
) -> torch.Tensor:
    """Return codes drawn so that the mean of their levels is the derivative.

    The chance of the upper level is right to 2^-17, as the numbers that are drawn have 16 bits.

    Args:
        x: the input.
        key: of the random numbers.
        function: whose derivative it is.
        levels: ascending, 2^bits; the derivative is between the first and the last.
        order: of the dimensions in memory, slowest first; by default row by row.
    """
    flat, bits = flattened(x, order), len(levels).bit_length() - 1
    packed = x.new_empty(kernels.packed_size(x.numel(), bits), dtype=torch.uint8)
    for start in range(0, x.numel(), _CHUNK):
        part = flat[start : start + _CHUNK]
        wide = part if part.dtype is torch.float64 else part.float()
        slopes = function.derivative(wide)
        known = torch.tensor(levels, dtype=wide.dtype, device=x.device)
        below = torch.searchsorted(known, slopes, right=True).sub_(1).clamp_(0, len(levels) - 2)
        low, high = known[below], known[below + 1]
        drawn = noise(key, part.numel(), start, x.device)
        # Levels that are equal leave nothing to draw: 0 / 0 is above no number.
        codes = below + (drawn < (slopes - low) / (high - low))
        bytes_before = kernels.packed_size(start, bits)
        here = packed[bytes_before : bytes_before + kernels.packed_size(part.numel(), bits)]
        kernels.pack(codes.to(torch.uint8), bits, out=here)
    return packed
