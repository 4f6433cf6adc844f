"""How far each parameter is off its own values at each place that a step asks for the loss at."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from shoestring.core.errors import InputError
from shoestring.kernels.streams import stream_key
from shoestring.zeroth.directions import Direction, LowRank, Signs, as_matrix
from shoestring.zeroth.twin.draws import Stream, draw


class Shift:
    r"""One parameter at all places: ``W + sign radius Z_k`` for every direction k and sign.

    Places are numbered direction by direction, and for each direction sign by sign.

    Args:
        parameter: W; it is read, and never written to.
        directions: ``Z_k``; all of low rank, or none.
        radius: how far.
        signs: of each direction: ``(1, -1)`` for both sides.
        drawn: signs by the key of their stream; those of a vector times the radius.

    Attributes:
        low: whether the directions are of low rank: a product with them needs no matrix.
        scale: what ``U V^T`` is to be multiplied with.
        dtype: of the parameter at all places: float32, or float64.
    """

    def __init__(
        self,
        parameter: torch.Tensor,
        directions: Sequence[Direction],
        radius: float,
        signs: Sequence[int],
        drawn: Mapping[int, torch.Tensor],
    ) -> None:
        self._parameter, self._directions = parameter.detach(), directions
        self._radius, self._signs, self._drawn = radius, signs, drawn
        self._factors: tuple[torch.Tensor, torch.Tensor] | None = None
        self._moved: torch.Tensor | None = None
        ranks = [z.rank for z in directions if isinstance(z, LowRank)]
        self.low = bool(ranks)
        self.scale = radius / math.sqrt(ranks[0]) if ranks else radius
        exact = parameter.dtype is torch.float64
        self.dtype = torch.float64 if exact else torch.float32

    def factors(self, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ``U [q, n, r]`` and ``V [q, m, r]``, where ``Z = U V^T / sqrt(r)``.

        Args:
            dtype: of what they are multiplied with.
        """
        if self._factors is None:
            pairs = [self._pair(z) for z in self._directions if isinstance(z, LowRank)]
            self._factors = _stacked([u for u, _ in pairs]), _stacked([v for _, v in pairs])
        u, v = self._factors
        return u.to(dtype), v.to(dtype)

    def _pair(self, direction: LowRank) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the factors of one direction; those of signs were drawn with all others."""
        matrix = as_matrix(self._parameter)
        if type(direction) is not LowRank:
            return direction.factors(matrix)
        u, v = (
            self._drawn[stream_key(direction.key, side)].view(direction.rank, -1).T.to(matrix)
            for side in range(2)
        )
        return direction.keep(u, v)

    def steps(self, dtype: torch.dtype) -> torch.Tensor:
        """Return every direction times the radius, ``[q, *shape]``.

        Args:
            dtype: of what they are added to.
        """
        if self.low:
            u, v = self.factors(dtype)
            whole = torch.bmm(u, v.mT).mul_(self.scale)
            return whole.view(len(u), *self._parameter.shape)
        return _stacked([self._step(z).to(dtype) for z in self._directions])

    def _step(self, direction: Direction) -> torch.Tensor:
        """Return a direction of a vector or number, times the radius."""
        if type(direction) is Signs:
            drawn = self._drawn[direction.key].to(self._parameter.device)
            return drawn.view(self._parameter.shape)
        step = torch.zeros_like(self._parameter, dtype=torch.float64)
        direction.add_to(step, self._radius)
        return step

    def own(self) -> torch.Tensor:
        """Return the parameter's own values."""
        return self._parameter

    def moved(self) -> torch.Tensor:
        """Return the parameter at all places, ``[places, *shape]``."""
        if self._moved is None:
            self.put(*move_together([self], self._signs))
        assert self._moved is not None
        return self._moved

    def put(self, moved: torch.Tensor) -> None:
        """Take note of the parameter at all places.

        Args:
            moved: found for several parameters at once.
        """
        self._moved = moved


def move_together(shifts: Sequence[Shift], signs: Sequence[int]) -> list[torch.Tensor]:
    """Return parameters at all places: in a few operators, for however many of them.

    Args:
        shifts: of one dtype, on one device.
        signs: of the places along each direction.
    """
    dtype = shifts[0].dtype
    own = torch.cat([shift.own().reshape(-1).to(dtype) for shift in shifts])
    steps = torch.cat([_rows(shift.steps(dtype)) for shift in shifts], 1)
    sides = [torch.add(own, steps, alpha=sign) for sign in signs]
    places = torch.stack(sides, 1).flatten(0, 1)
    parts = places.split([shift.own().numel() for shift in shifts], 1)
    pairs = zip(parts, shifts, strict=True)
    return [part.view(len(part), *shift.own().shape) for part, shift in pairs]


def shifts_of(
    parameters: Sequence[torch.Tensor],
    along: Sequence[Sequence[Direction]],
    radii: Sequence[float],
    signs: Sequence[int],
) -> list[Shift]:
    """Return the shift of each parameter.

    Args:
        parameters: those that are trained.
        along: the directions, each one of every parameter; of low rank for matrices.
        radii: how far each parameter is moved.
        signs: of the places along each direction.

    Raises:
        InputError: a direction of a matrix is of another kind.
    """
    streams: list[Stream] = []
    for directions in along:
        for parameter, direction, radius in zip(parameters, directions, radii, strict=True):
            if parameter.dim() > 1 and not isinstance(direction, LowRank):
                raise InputError(
                    "a twin forward takes directions of low rank.",
                    hint="set directions='rank1' or directions='lowrank:4'.",
                )
            streams += _streams(parameter, direction, radius)
    exact = any(parameter.dtype is torch.float64 for parameter in parameters)
    found = draw(streams, torch.float64 if exact else torch.float32)
    drawn = {stream.key: tensor for stream, tensor in zip(streams, found, strict=True)}
    shifts = [
        Shift(parameter, [directions[k] for directions in along], radius, signs, drawn)
        for k, (parameter, radius) in enumerate(zip(parameters, radii, strict=True))
    ]
    _move_vectors(shifts, signs)
    return shifts


def _move_vectors(shifts: Sequence[Shift], signs: Sequence[int]) -> None:
    """Find all vectors at all places: one by one they would take most of a step's operators."""
    kinds: dict[tuple[torch.dtype, torch.device], list[Shift]] = {}
    for shift in shifts:
        if not shift.low:
            kinds.setdefault((shift.dtype, shift.own().device), []).append(shift)
    for alike in kinds.values():
        for shift, moved in zip(alike, move_together(alike, signs), strict=True):
            shift.put(moved)


def _streams(parameter: torch.Tensor, direction: Direction, radius: float) -> list[Stream]:
    """Return the signs that a direction takes; of other numbers, none."""
    if type(direction) is Signs:
        return [Stream(direction.key, parameter.numel(), direction.size * radius)]
    if type(direction) is LowRank:
        sides = len(parameter), parameter.numel() // len(parameter)
        keys = [stream_key(direction.key, side) for side in range(2)]
        return [Stream(k, n * direction.rank, 1.0) for k, n in zip(keys, sides, strict=True)]
    return []


def _stacked(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return tensors as one; without a copy where there is one."""
    return tensors[0].unsqueeze(0) if len(tensors) == 1 else torch.stack(list(tensors))


def _rows(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor as a matrix: also one of one dimension."""
    return tensor.reshape(len(tensor), -1)
