"""Random numbers that directions are made of, and passes over a tensor, a part at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import torch

from shoestring.core.errors import InputError
from shoestring.kernels.streams import signs
from shoestring.zeroth.directions import (
    CHUNK,
    Direction,
    LowRank,
    Normal,
    Signs,
    put_back,
)

KINDS: Final = ("gaussian", "rademacher")
"""Normal numbers, and signs."""

FARTHEST: Final = 8.0
"""Magnitude beyond which lies one normal number in 1e15."""


def check_kind(directions: str) -> None:
    """Refuse a family of directions that is not made of independent entries.

    Args:
        directions: what a user asked for.

    Raises:
        InputError: it is neither of normal numbers nor of signs.
    """
    if directions not in KINDS:
        raise InputError(
            f"directions={directions!r} have no independent entries to build on.",
            hint=f"take one of {', '.join(KINDS)}.",
        )


def check_interval(interval: int) -> None:
    """Refuse an interval that holds no step.

    Args:
        interval: in steps.

    Raises:
        InputError: it is below 1.
    """
    if interval < 1:
        raise InputError(f"interval={interval} holds no step.", hint="take 1 or more.")


def plain(directions: str, key: int) -> Direction:
    """Return a direction of independent entries.

    Args:
        directions: ``gaussian`` or ``rademacher``.
        key: of the numbers.
    """
    return Normal(key) if directions == "gaussian" else Signs(key)


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype that numbers are drawn and summed in.

    Args:
        dtype: of the tensor that they are for.
    """
    return torch.float64 if dtype is torch.float64 else torch.float32


def draw(directions: str, key: int, count: int, like: torch.Tensor) -> Iterator[torch.Tensor]:
    """Draw the numbers that `plain` adds, in their order, so many at a time as `in_parts` passes.

    Args:
        directions: ``gaussian`` or ``rademacher``.
        key: of the numbers.
        count: how many there are.
        like: tells the device, and the dtype, which is widened.
    """
    dtype = wide(like.dtype)
    generator = torch.Generator(like.device).manual_seed(key)
    for start in range(0, count, CHUNK):
        size = min(CHUNK, count - start)
        if directions == "gaussian":
            yield torch.randn(size, generator=generator, dtype=dtype, device=like.device)
        else:
            yield signs(key, size, start=start, dtype=dtype, device=like.device)


def draw_matrix(
    directions: str, key: int, shape: tuple[int, int], like: torch.Tensor
) -> torch.Tensor:
    """Draw a matrix.

    Args:
        directions: ``gaussian`` or ``rademacher``.
        key: of the numbers.
        shape: of the matrix.
        like: tells the device, and the dtype, which is widened.
    """
    rows, cols = shape
    return torch.cat(list(draw(directions, key, rows * cols, like))).view(rows, cols)


def in_parts(tensor: torch.Tensor, change: Callable[[int, torch.Tensor], None]) -> None:
    """Change a tensor row by row, a part at a time.

    Args:
        tensor: of any shape and strides; changed in place.
        change: is given where a part starts, and the part, to be changed in place.
    """
    flat = tensor.detach().reshape(-1)  # a copy where rows are not in one piece
    for start in range(0, flat.numel(), CHUNK):
        change(start, flat[start : start + CHUNK])
    put_back(tensor, flat)


def rounded_(moved: torch.Tensor, spacing: float) -> torch.Tensor:
    """Round to a grid, in place.

    Args:
        moved: what is to be added to a tensor.
        spacing: of the grid; with 0 nothing is rounded.
    """
    return moved.div_(spacing).round_().mul_(spacing) if spacing else moved


class Product(LowRank):
    """``U V^T / sqrt(r)`` whose factors are not signs, and are rounded only once added up."""

    def add_to(self, tensor: torch.Tensor, scale: float) -> None:
        """Add a multiple of it; see `Direction.add_to`."""
        if tensor.dtype is wide(tensor.dtype):
            super().add_to(tensor, scale)
            return
        sums = tensor.detach().to(wide(tensor.dtype))
        super().add_to(sums, scale)
        put_back(tensor, sums)
