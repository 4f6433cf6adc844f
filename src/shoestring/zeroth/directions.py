"""Random directions: what a step perturbs the parameters along.

Every family has ``E z z^T = I`` over all parameters together, so that the slope along z times z is
an unbiased estimate of the gradient. A direction is a key and takes no memory; what it adds to a
tensor is made while it is added.

====================  =========================================================================
``rademacher``        signs of a hash; the least variance, ``E|g z z^T|^2 = d |g|^2``, and fastest
``gaussian``          normal numbers; ``(d + 2) |g|^2``
``sphere``            normal numbers, scaled to length ``sqrt(d)``
``rank1``             ``u v^T`` of signs for a matrix; vectors and numbers as ``rademacher``
``lowrank:r``         ``U V^T / sqrt(r)`` of signs, r columns each
``coord:k``           k of all d entries, signs of size ``sqrt(d / k)``
``semiortho:KIND``    ``sqrt(N) E``, orthonormal rows or columns, N the longer side; vectors as
                      ``rademacher``. KIND as in `kernels.semiorthogonal`
====================  =========================================================================

A weight of more than two dimensions, as of a convolution, is the matrix ``[out, the rest]``.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import torch

from shoestring.core.errors import InputError
from shoestring.kernels.outer import add_outer_
from shoestring.kernels.semiorthogonal import KINDS, SemiOrthogonal, semiorthogonal
from shoestring.kernels.stages import Stages
from shoestring.kernels.streams import add_signs_, signs, stream_key

CHUNK: Final = 1 << 16
"""Normal numbers that are drawn at a time."""

_FARTHEST: Final = 8.0
"""Magnitude beyond which lies one normal number in 1e15."""


class Direction(abc.ABC):
    """A random direction of one tensor.

    Attributes:
        unit: whether every entry is 1, -1 or 0.
        reach: largest magnitude of an entry, but for chances of 1e-15.
    """

    unit: bool = False
    reach: float = 1.0

    def displace(self, tensor: torch.Tensor, scale: float, spacing: float) -> None:
        """Add a multiple of the direction, each entry rounded to a grid.

        Args:
            tensor: of the shape that the direction was drawn for.
            scale: the factor.
            spacing: of the grid; with 0 nothing is rounded.
        """
        if self.unit or not spacing:
            self.add_to(tensor, scale)
            return
        moved = torch.zeros_like(tensor, memory_format=torch.contiguous_format)
        self.add_to(moved, scale)
        tensor.add_(moved.div_(spacing).round_().mul_(spacing))

    def displace_settled(
        self, tensor: torch.Tensor, scale: float, spacing: float, radius: float
    ) -> None:
        """Add a multiple of the direction as `displace` does, then settle the tensor.

        Args:
            tensor: of the shape that the direction was drawn for.
            scale: the factor.
            spacing: of the grid that the multiple is rounded to.
            radius: what the tensor is settled for, as in `kernels.stages.Stages`; above 0.
        """
        self.displace(tensor, scale, spacing)
        add_signs_(tensor, [], [], stages=Stages(radius=radius))

    @abc.abstractmethod
    def add_to(self, tensor: torch.Tensor, scale: float) -> None:
        """Add a multiple of the direction to a tensor, in place.

        Args:
            tensor: of the shape that the direction was drawn for.
            scale: the factor.
        """


class Signs(Direction):
    """Signs of a stream.

    Args:
        key: of the stream.
        size: of each entry.
    """

    def __init__(self, key: int, size: float = 1.0) -> None:
        self.key, self.size = key, size
        self.unit, self.reach = size == 1, size

    def add_to(self, tensor: torch.Tensor, scale: float) -> None:
        """Add a multiple of it; see `Direction.add_to`."""
        add_signs_(tensor, [self.key], [self.size * scale])


class Normal(Direction):
    """Normal numbers, of torch's generator on the tensor's device.

    Args:
        key: seed of the generator.
        size: what each is multiplied with.
    """

    def __init__(self, key: int, size: float = 1.0) -> None:
        self.key, self.size = key, size
        self.reach = _FARTHEST * size

    def add_to(self, tensor: torch.Tensor, scale: float) -> None:
        """Add a multiple of it; see `Direction.add_to`."""
        self.displace(tensor, scale, 0.0)

    def displace(self, tensor: torch.Tensor, scale: float, spacing: float) -> None:
        """Add a multiple of it, rounded to a grid; see `Direction.displace`."""
        wide = torch.float64 if tensor.dtype is torch.float64 else torch.float32
        generator = torch.Generator(tensor.device).manual_seed(self.key)
        rows = tensor.detach().reshape(-1)
        for start in range(0, rows.numel(), CHUNK):
            part = rows[start : start + CHUNK]
            z = torch.randn(part.shape, generator=generator, dtype=wide, device=tensor.device)
            z.mul_(scale * self.size)
            part.add_(z.div_(spacing).round_().mul_(spacing) if spacing else z)
        put_back(tensor, rows)

    def square(self, tensor: torch.Tensor) -> float:
        """Return the square of its length.

        Args:
            tensor: of the shape and on the device that it is for.
        """
        generator = torch.Generator(tensor.device).manual_seed(self.key)
        wide = torch.float64 if tensor.dtype is torch.float64 else torch.float32
        total = 0.0
        for start in range(0, tensor.numel(), CHUNK):
            count = min(CHUNK, tensor.numel() - start)
            z = torch.randn(count, generator=generator, dtype=wide, device=tensor.device)
            total += float(z.double().square().sum())
        return total


class LowRank(Direction):
    """``U V^T / sqrt(r)`` of signs.

    Args:
        key: of the streams.
        rank: r.
    """

    def __init__(self, key: int, rank: int) -> None:
        self.key, self.rank = key, rank
        self.unit, self.reach = rank == 1, math.sqrt(rank)
        self._factors: tuple[torch.Tensor, torch.Tensor] | None = None

    def factors(self, matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return U ``[n, r]`` and V ``[m, r]``, not divided by anything.

        Args:
            matrix: tells n and m, dtype and device.
        """
        kept = self._factors
        if kept is not None and kept[0].dtype is matrix.dtype and kept[0].device == matrix.device:
            return kept
        u, v = (
            signs(stream_key(self.key, side), size * self.rank).to(matrix).view(self.rank, size).T
            for side, size in enumerate(matrix.shape)
        )
        return self.keep(u, v)

    def keep(self, u: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keep the factors, which a step asks for some times, and return them.

        They are small beside the matrix, and go with the direction.

        Args:
            u: U.
            v: V.
        """
        self._factors = u, v
        return u, v

    def add_to(self, tensor: torch.Tensor, scale: float) -> None:
        """Add a multiple of it; see `Direction.add_to`."""
        self._add_to(tensor, scale, 0.0)

    def _add_to(self, tensor: torch.Tensor, scale: float, radius: float) -> None:
        matrix = as_matrix(tensor)
        u, v = self.factors(matrix)
        if self.unit:
            add_outer_(matrix, u[:, 0], v[:, 0], scale, radius=radius)
        else:
            matrix.addmm_(u, v.T, alpha=scale / math.sqrt(self.rank))
        put_back(tensor, matrix)

    def displace_settled(
        self, tensor: torch.Tensor, scale: float, spacing: float, radius: float
    ) -> None:
        """Add a multiple of it and settle, in one pass; see `Direction.displace_settled`."""
        if self.unit:
            self._add_to(tensor, scale, radius)
        else:
            super().displace_settled(tensor, scale, spacing, radius)

    def displace(self, tensor: torch.Tensor, scale: float, spacing: float) -> None:
        """Add a multiple of it, some rows at a time; see `Direction.displace`."""
        if self.unit or not spacing:
            self.add_to(tensor, scale)
            return
        matrix = as_matrix(tensor)
        u, v = self.factors(matrix)
        rows = max(1, CHUNK // max(1, matrix.size(1)))
        for part, some in zip(matrix.split(rows), u.split(rows), strict=True):
            moved = (some @ v.T).mul_(scale / math.sqrt(self.rank))
            part.add_(moved.div_(spacing).round_().mul_(spacing))
        put_back(tensor, matrix)


class Orthogonal(Direction):
    """``sqrt(N) E`` with orthonormal rows or columns.

    Args:
        kind: of `kernels.semiorthogonal`.
        key: of the draw.
        longer: N.
    """

    def __init__(self, kind: str, key: int, longer: int) -> None:
        self.kind, self.key = kind, key
        self.reach = math.sqrt(longer)

    def drawn(self, matrix: torch.Tensor) -> SemiOrthogonal:
        """Return E.

        Args:
            matrix: tells its shape.
        """
        return semiorthogonal(self.kind, matrix.size(0), matrix.size(1), self.key)

    def add_to(self, tensor: torch.Tensor, scale: float) -> None:
        """Add a multiple of it; see `Direction.add_to`."""
        matrix = as_matrix(tensor)
        self.drawn(matrix).add_to(matrix, scale * math.sqrt(max(matrix.shape)))
        put_back(tensor, matrix)


class Coordinates(Direction):
    """Signs in some places, zero elsewhere.

    Args:
        places: indices of the entries, row by row; none twice.
        values: what is there.
    """

    def __init__(self, places: torch.Tensor, values: torch.Tensor) -> None:
        self.places, self.values = places, values
        self.reach = float(values.abs().max()) if len(values) else 1.0
        self.unit = bool((values.abs() == 1).all())

    def add_to(self, tensor: torch.Tensor, scale: float) -> None:
        """Add a multiple of it; see `Direction.add_to`."""
        if len(self.places):
            rows = tensor.detach().reshape(-1)
            values = (self.values * scale).to(tensor)
            rows.index_add_(0, self.places.to(tensor.device), values)
            put_back(tensor, rows)


Draw = Callable[[Sequence[torch.Tensor], int], list[Direction]]
"""Draws a direction for each tensor from a key."""


def family(name: str) -> Draw:
    """Return how a family is drawn.

    Args:
        name: as in the table above, such as ``rademacher`` or ``lowrank:4``.

    Raises:
        InputError: there is no such family.

    Example:
        >>> (z,) = family("rademacher")([torch.zeros(3)], 7)
        >>> x = torch.zeros(3)
        >>> z.add_to(x, 2.0)
        >>> x.abs().tolist()
        [2.0, 2.0, 2.0]
    """
    kind, _, option = name.partition(":")
    if kind in _PLAIN and not option:
        return _PLAIN[kind]
    if kind in _COUNTED:
        if not option.isdigit() or int(option) < 1:
            raise InputError(
                f"directions={name!r} lacks a number.", hint=f"write {kind}:4, for one."
            )
        return _COUNTED[kind](int(option))
    if kind == "semiortho" and option in KINDS:
        return _matrices(lambda key, t: Orthogonal(option, key, max(as_matrix(t).shape)))
    kinds = [*_PLAIN, *(f"{kind}:N" for kind in _COUNTED), *(f"semiortho:{k}" for k in KINDS)]
    raise InputError(
        f"there are no directions called {name!r}.", hint=f"take one of {', '.join(kinds)}."
    )


def as_matrix(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor of two or more dimensions as ``[out, the rest]``; a view where it can be.

    Args:
        tensor: of two or more dimensions.
    """
    return tensor.detach().reshape(len(tensor), -1)


def put_back(tensor: torch.Tensor, changed: torch.Tensor) -> None:
    """Write back what was changed in a copy, where no view of that shape exists.

    Args:
        tensor: to be changed.
        changed: a view or a copy of it, changed; or itself.
    """
    if changed.data_ptr() != tensor.data_ptr():
        tensor.detach().copy_(changed.view(tensor.shape))
    torch.autograd.graph.increment_version(tensor)


def _each(make: Callable[[int], Direction]) -> Draw:
    def draw(tensors: Sequence[torch.Tensor], key: int) -> list[Direction]:
        return [make(stream_key(key, k)) for k in range(len(tensors))]

    return draw


def _matrices(make: Callable[[int, torch.Tensor], Direction]) -> Draw:
    """Draw matrices one way, and vectors and numbers as signs."""

    def draw(tensors: Sequence[torch.Tensor], key: int) -> list[Direction]:
        keys = [stream_key(key, k) for k in range(len(tensors))]
        pairs = zip(tensors, keys, strict=True)
        return [make(k, t) if t.dim() > 1 and t.numel() else Signs(k) for t, k in pairs]

    return draw


def _sphere(tensors: Sequence[torch.Tensor], key: int) -> list[Direction]:
    normal = [Normal(stream_key(key, k)) for k in range(len(tensors))]
    square = sum(z.square(t) for z, t in zip(normal, tensors, strict=True))
    size = math.sqrt(sum(t.numel() for t in tensors) / square) if square > 0 else 0.0
    return [Normal(z.key, size) for z in normal]


def _coordinates(count: int) -> Draw:
    def draw(tensors: Sequence[torch.Tensor], key: int) -> list[Direction]:
        sizes = [tensor.numel() for tensor in tensors]
        total = sum(sizes)
        chosen = min(count, total)
        places = choose(total, chosen, key)
        values = signs(stream_key(key, 1), chosen) * math.sqrt(total / max(chosen, 1))
        found: list[Direction] = []
        start = 0
        for size in sizes:
            here = (places >= start) & (places < start + size)
            found.append(Coordinates(places[here] - start, values[here]))
            start += size
        return found

    return draw


def choose(total: int, count: int, key: int) -> torch.Tensor:
    """Return some of the numbers below a total, none twice, each set as likely as any.

    Args:
        total: how many there are.
        count: how many are chosen.
        key: decides which.
    """
    generator = torch.Generator().manual_seed(stream_key(key, 0))
    if 2 * count >= total:
        return torch.randperm(total, generator=generator)[:count]
    found = np.empty(0, np.int64)
    while len(found) < count:  # what was drawn before is passed over, so that each set is as likely
        more = torch.randint(total, (count,), generator=generator).numpy()
        both = np.concatenate([found, more])
        _, first = np.unique(both, return_index=True)
        found = both[np.sort(first)]
    return torch.from_numpy(found[:count])


_PLAIN: Final[dict[str, Draw]] = {
    "rademacher": _each(Signs),
    "gaussian": _each(Normal),
    "sphere": _sphere,
    "rank1": _matrices(lambda key, _: LowRank(key, 1)),
}
_COUNTED: Final[dict[str, Callable[[int], Draw]]] = {
    "lowrank": lambda rank: _matrices(lambda key, _: LowRank(key, rank)),
    "coord": _coordinates,
}
