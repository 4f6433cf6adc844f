"""A round of MARINA: which coordinates each worker asks for, and what all of them come to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import torch

from shoestring.kernels.streams import stream_key
from shoestring.zeroth.asking import Closure, number
from shoestring.zeroth.entries import Entries
from shoestring.zeroth.kept import Group
from shoestring.zeroth.same_numbers import SameNumbers

_COIN: Final = 0
_SET: Final = 1
ROUNDING: Final = 2
"""What a key of a stream is for, beside seed and round."""


class Round:
    """What the workers of one round ask for.

    Args:
        shared: options of the optimizer.
        rank: of the first worker in this process.
        entries: of the parameters.
        whole: whether each worker asks for all of them.

    Attributes:
        entries: as given.
        whole: as given.
        asked: calls of closures.
        losses: that they returned.
    """

    def __init__(self, shared: Group, rank: int, entries: Entries, *, whole: bool) -> None:
        self.entries, self.whole, self.asked = entries, whole, 0
        self.losses: list[float] = []
        self._shared, self._rank, self._same = shared, rank, SameNumbers()

    def places(self, rank: int) -> torch.Tensor:
        """Return the coordinates that a worker asks for.

        Args:
            rank: of the worker.
        """
        if self.whole:
            return torch.arange(len(self.entries))
        shared, count = self._shared, min(self._shared["coords"], len(self.entries))
        return coordinates(shared["seed"], shared["draws"], rank, len(self.entries), count)

    def slopes(self, index: int, closure: Closure) -> torch.Tensor:
        """Return the slopes of a worker's loss along its coordinates.

        Args:
            index: of the worker among those in this process.
            closure: its loss.
        """

        def ask() -> float:
            self.asked += 1
            self.losses.append(number(self._same.call(closure)))
            return self.losses[-1]

        return self.entries.slopes(ask, self.places(self._rank + index).tolist())

    def mean(self, received: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return coordinates, in order, and what is known of the gradient along each.

        Sums are made in float64, one worker after the other.

        Args:
            received: what each worker sent.
        """
        each = [self.places(rank) for rank in range(len(received))]
        places = torch.unique(torch.cat(each))
        sums = torch.zeros(len(places), dtype=torch.float64)
        for mine, numbers in zip(each, received, strict=True):
            sums[torch.searchsorted(places, mine)] += numbers.double()
        return places, sums * (len(self.entries) / len(each[0])) / len(received)


def coin(seed: int, draw: int) -> float:
    """Return the number between 0 and 1 that decides about a round.

    Args:
        seed: of the run.
        draw: rounds before.
    """
    return math.ldexp(stream_key(seed, _COIN, draw), -64)


def coordinates(seed: int, draw: int, rank: int, dimension: int, count: int) -> torch.Tensor:
    """Return the coordinates that a worker asks for in a round, in ascending order.

    Args:
        seed: of the run.
        draw: rounds before.
        rank: of the worker.
        dimension: d, of all coordinates.
        count: K, of those asked for.
    """
    generator = torch.Generator().manual_seed(stream_key(seed, _SET, draw, rank))
    return torch.randperm(dimension, generator=generator)[:count].sort().values
