"""Slopes along single entries of tensors, by differences: two evaluations for each."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch


class Entries:
    """The entries of several tensors, numbered one tensor after the other, row by row.

    Args:
        tensors: of floating dtype; of any shape and strides.
        eps: how far an entry of each is moved.
    """

    def __init__(self, tensors: Sequence[torch.Tensor], eps: Sequence[float]) -> None:
        self._tensors, self._eps = tensors, eps
        sizes = [tensor.numel() for tensor in tensors]
        self._starts = [0, *itertools.accumulate(sizes)]

    def __len__(self) -> int:
        return self._starts[-1]

    @torch.no_grad()
    def slopes(self, function: Callable[[], float], entries: Iterable[int]) -> torch.Tensor:
        """Return the slope of a function along each of some entries, in float64.

        Each entry is put back as it was, also where the function raises.

        Args:
            function: reads the tensors.
            entries: their numbers.
        """
        found = [self._slope(function, entry) for entry in entries]
        return torch.tensor(found, dtype=torch.float64)

    def _slope(self, function: Callable[[], float], entry: int) -> float:
        which = bisect.bisect_right(self._starts, entry) - 1
        tensor, eps = self._tensors[which], self._eps[which]
        place = np.unravel_index(entry - self._starts[which], tensor.shape)
        index = tuple(int(axis) for axis in place)
        here = tensor[index].clone()
        ahead, behind = _moved(here, eps), _moved(here, -eps)
        try:
            tensor[index] = ahead
            there = function()
            tensor[index] = behind
            other = function()
        finally:
            tensor[index] = here
        return (there - other) / (float(ahead) - float(behind))

    def runs(self, entries: torch.Tensor) -> list[tuple[int, slice, torch.Tensor]]:
        """Return where sorted entries lie: the tensor, which of them, their places in it.

        Args:
            entries: their numbers, in ascending order.
        """
        ends = torch.searchsorted(entries, torch.tensor(self._starts)).tolist()
        spans = [slice(*pair) for pair in itertools.pairwise(ends)]
        return [
            (which, span, entries[span] - self._starts[which])
            for which, span in enumerate(spans)
            if span.start < span.stop
        ]


def _moved(value: torch.Tensor, distance: float) -> torch.Tensor:
    """Return a number moved by a distance, or by the least that its dtype can tell."""
    if not math.isfinite(float(value)):
        return value
    moved = (value.double() + distance).to(value.dtype)
    while bool(moved == value):
        distance *= 2
        moved = (value.double() + distance).to(value.dtype)
    return moved
