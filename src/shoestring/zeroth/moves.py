"""Moves of parameters along directions: several in one pass over the memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from shoestring.kernels.rounding import add_rounded_
from shoestring.kernels.stages import NOTHING, Stages
from shoestring.kernels.streams import add_signs_, add_signs_to_all_, stream_key
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

    def of(self, tensor: int) -> tuple[Direction, float, float]:
        """Return direction, factor and spacing of one tensor.

        Args:
            tensor: its index.
        """
        spacing = self.spacings[tensor] if self.spacings else 0.0
        return self.directions[tensor], self.scales[tensor], spacing

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
    left = range(len(tensors)) if rounding is not None else _with_signs(tensors, moves, stages)
    for k in left:
        between = NOTHING if stages is None else stages[k]
        key = None if rounding is None else stream_key(rounding, k)
        _move_one(tensors[k], [m.of(k) for m in moves], between, key)


def _with_signs(
    tensors: Sequence[torch.Tensor], moves: Sequence[Move], stages: Sequence[Stages] | None
) -> list[int]:
    """Move what takes random signs alone, all in one call, and return the indices of the others."""
    left, signed = list[int](), list[int]()
    keys, scales = list[list[int]](), list[list[float]]()
    for k in range(len(tensors)):
        signs = [z for z in (m.directions[k] for m in moves) if isinstance(z, Signs)]
        if len(signs) < len(moves):
            left.append(k)
            continue
        signed.append(k)
        keys.append([z.key for z in signs])
        scales.append([z.size * m.scales[k] for z, m in zip(signs, moves, strict=True)])
    between = [NOTHING if stages is None else stages[k] for k in signed]
    add_signs_to_all_([tensors[k] for k in signed], keys, scales, stages=between)
    return left


def _move_one(
    tensor: torch.Tensor,
    terms: Sequence[tuple[Direction, float, float]],
    between: Stages,
    rounding: int | None,
) -> None:
    """Move a tensor along directions, by a factor each, which is rounded to a grid."""
    signs = [(z.key, z.size * scale) for z, scale, _ in terms if isinstance(z, Signs)]
    if len(signs) == len(terms):
        keys, scales = [key for key, _ in signs], [scale for _, scale in signs]
        add_signs_(tensor, keys, scales, stages=between, rounding=rounding)
        return
    if rounding is not None:
        update = wide_zeros(tensor)
        for direction, scale, _ in terms:
            direction.add_to(update, scale)
        add_rounded_(tensor, update, scale=1.0, decay=between.decay, key=rounding)
        return
    settled = len(terms) - between.after
    decays = between.decay != 1
    apart = settled == 0 or (decays and settled == between.before)
    for index in range(len(terms) + 1):
        if decays and index == between.before:
            tensor.mul_(between.decay)
        if apart and index == settled and between.radius > 0:
            add_signs_(tensor, [], [], stages=Stages(radius=between.radius))
        if index == len(terms):
            return
        direction, scale, spacing = terms[index]
        if not apart and index + 1 == settled and between.radius > 0:
            direction.displace_settled(tensor, scale, spacing, between.radius)
        else:
            direction.displace(tensor, scale, spacing)
