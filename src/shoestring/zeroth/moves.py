"""Moves of parameters along directions: several in one pass over the memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from shoestring.kernels.rounding import add_rounded_
from shoestring.kernels.stages import NOTHING, Stages
from shoestring.kernels.streams import add_signs_, stream_key
from shoestring.zeroth.directions import Direction, Signs
from shoestring.zeroth.kept import wide_zeros


class Move(NamedTuple):
    """A multiple of a direction, tensor by tensor.

    Attributes:
        directions: one for each tensor.
        scales: the factors.
        spacings: of the grid that each is rounded to; empty where they are not.
    """

    directions: Sequence[Direction]
    scales: Sequence[float]
    spacings: Sequence[float] = ()

    def only(self, tensors: Sequence[int]) -> Move:
        """Return the move of some tensors.

        Args:
            tensors: their indices.
        """
        spacings = [self.spacings[k] for k in tensors] if self.spacings else ()
        return Move(
            [self.directions[k] for k in tensors], [self.scales[k] for k in tensors], spacings
        )


def move(
    tensors: Sequence[torch.Tensor],
    moves: Sequence[Move],
    *,
    stages: Sequence[Stages] | None = None,
    rounding: int | None = None,
) -> None:
    """Make several moves, one after the other; with random signs in one pass.

    Args:
        tensors: what is moved, in place.
        moves: what is added.
        stages: what is done to each tensor between the moves; by default nothing.
        rounding: key of the stream that rounds sums below float32, which are made at once; None
            rounds each to nearest.
    """
    for k, tensor in enumerate(tensors):
        between = NOTHING if stages is None else stages[k]
        directions = [m.directions[k] for m in moves]
        scales = [m.scales[k] for m in moves]
        signs = [direction for direction in directions if isinstance(direction, Signs)]
        if len(signs) == len(directions):
            sized = [d.size * scale for d, scale in zip(signs, scales, strict=True)]
            key = None if rounding is None else stream_key(rounding, k)
            add_signs_(tensor, [d.key for d in signs], sized, stages=between, rounding=key)
            continue
        if rounding is not None:
            update = wide_zeros(tensor)
            for direction, scale in zip(directions, scales, strict=True):
                direction.add_to(update, scale)
            key = stream_key(rounding, k)
            add_rounded_(tensor, update, scale=1.0, decay=between.decay, key=key)
            continue
        for index in range(len(directions) + 1):
            if index == between.before and between.decay != 1:
                tensor.mul_(between.decay)
            if index == len(directions) - between.after and between.radius > 0:
                add_signs_(tensor, [], [], stages=Stages(radius=between.radius))
            if index < len(directions):
                spacings = moves[index].spacings
                spacing = spacings[k] if spacings else 0.0
                directions[index].displace(tensor, scales[index], spacing)
