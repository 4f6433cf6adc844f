"""How much the error at each input counts: evenly, normally, as seen, or as a callable says."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np
import torch

from shoestring.activations.fewbit.functions import Floats
from shoestring.core.errors import InputError

# The grid on which tensors are counted: even in arcsinh(x), so 0.01 wide at zero and 1 % of x far
# out, up to a million. All histograms have it, and can be added.
_END: Final = 14.5
_NUM_BINS: Final = 2900
_CHUNK: Final = 2**20


@dataclasses.dataclass(frozen=True)
class Histogram:
    """How often values were seen, bin by bin.

    Args:
        edges: of the bins, ascending; one more than counts.
        counts: how many values, or what share of them, each bin has.

    Raises:
        InputError: edges do not ascend, counts are negative, all are zero, or the like.

    Example:
        >>> seen = Histogram.of(torch.tensor([0.5, 0.5, -3.0]))
        >>> seen = seen.merge(Histogram.of(torch.ones(5)))
        >>> sum(seen.counts)
        8.0
    """

    edges: tuple[float, ...]
    counts: tuple[float, ...]

    def __post_init__(self) -> None:
        edges, counts = np.asarray(self.edges), np.asarray(self.counts)
        if len(edges) != len(counts) + 1 or not len(counts):
            raise InputError(
                f"{len(edges)} edges do not bound {len(counts)} bins.",
                hint="give one edge more than counts.",
            )
        if not (np.isfinite(edges).all() and (np.diff(edges) > 0).all()):
            raise InputError("the edges do not ascend.", hint="give finite edges in order.")
        if not np.isfinite(counts).all() or counts.min() < 0:
            raise InputError("a count is negative or not finite.", hint="count from 0 up.")

    @classmethod
    def of(cls, values: torch.Tensor | Floats) -> Histogram:
        """Count values, on a grid that is the same for all.

        Bins are 0.01 wide at zero and 1 % of the value far from it; what is above a million counts
        in the last bin. NaN and infinities are left out. Work is done on the tensor's device, a
        million numbers at a time.

        Args:
            values: of any shape and floating-point dtype.

        Returns:
            The histogram; its counts are all zero where there was nothing to count.

        Raises:
            InputError: the values are no floating-point numbers.
        """
        given = torch.as_tensor(values).detach()
        if not given.is_floating_point():
            raise InputError(
                f"{given.dtype} cannot be counted.", hint="give floating-point values."
            )
        counts = torch.zeros(_NUM_BINS, dtype=torch.int64, device=given.device)
        for part in given.reshape(-1).split(_CHUNK):
            wide = part.to(torch.promote_types(part.dtype, torch.float32))
            wide = wide[torch.isfinite(wide)]
            place = (torch.asinh(wide) + _END) * (_NUM_BINS / (2 * _END))
            found = place.floor().clamp(0, _NUM_BINS - 1).to(torch.int64)
            counts += torch.bincount(found, minlength=_NUM_BINS)
        return cls(_grid(), tuple(float(count) for count in counts.tolist()))

    def merge(self, other: Histogram) -> Histogram:
        """Return a histogram of the values of both.

        Args:
            other: with the same edges.

        Raises:
            InputError: the edges differ.
        """
        if self.edges != other.edges:
            raise InputError(
                "histograms of different edges cannot be merged.",
                hint="make both with Histogram.of.",
            )
        total = np.add(self.counts, other.counts)
        return Histogram(self.edges, tuple(total.tolist()))


@functools.cache
def _grid() -> tuple[float, ...]:
    return tuple(np.sinh(np.linspace(-_END, _END, _NUM_BINS + 1)).tolist())


Given: TypeAlias = str | Histogram | Callable[[Floats], Floats]


@dataclasses.dataclass(frozen=True)
class Weight:
    """A density over inputs.

    Args:
        density: its value at each place.
        jumps: where it jumps, ascending.
    """

    density: Callable[[Floats], Floats]
    jumps: tuple[float, ...] = ()


def as_weight(given: Given) -> Weight:
    """Return a density from what `quantizer.Quantizer.fit` takes.

    Args:
        given: ``uniform`` for 1 everywhere, ``normal`` for the standard normal density, a
            histogram for the density of what was seen, or a callable on float64 arrays.

    Raises:
        InputError: there is no such weight, or the histogram is empty.

    Example:
        >>> float(as_weight("uniform").density(np.zeros(1))[0])
        1.0
    """
    if isinstance(given, Histogram):
        return _seen(given)
    if callable(given):
        return Weight(given)
    if given == "uniform":
        return Weight(np.ones_like)
    if given == "normal":
        return Weight(_normal)
    raise InputError(
        f"there is no weight {given!r}.",
        hint="take uniform, normal, a Histogram or a callable on arrays.",
    )


def _normal(x: Floats) -> Floats:
    density: Floats = np.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))
    return density


def _seen(histogram: Histogram) -> Weight:
    counts, edges = np.asarray(histogram.counts), np.asarray(histogram.edges)
    total = counts.sum()
    if not total > 0:
        raise InputError("the histogram is empty.", hint="count some values first.")
    heights = np.concatenate([[0.0], counts / total / np.diff(edges), [0.0]])
    # An edge between two empty bins is no jump.
    jumps = edges[np.diff(heights) != 0]
    density = functools.partial(_steps, edges=edges, heights=heights)
    return Weight(density, tuple(jumps.tolist()))


def _steps(x: Floats, edges: Floats, heights: Floats) -> Floats:
    found: Floats = heights[np.searchsorted(edges, x, side="right")]
    return found
