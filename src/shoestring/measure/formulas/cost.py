"""What one operator call costs, and what all formulas share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import torch


class Cost(NamedTuple):
    """What one operator call computes.

    Attributes:
        flops: floating point operations of contractions, 2 per multiply-add, and of algorithms
            by their textbook formula (FFT, factorisations).
        macs: multiply-adds of contractions; half of ``flops`` for them, 0 for algorithms.
        elementwise: scalar operations on floating or complex numbers outside of these.
    """

    flops: int
    macs: int
    elementwise: int


# A formula reads shapes from what an operator was given and returned, whatever that is.
Arguments: TypeAlias = Sequence[Any]
Options: TypeAlias = Mapping[str, Any]
Formula: TypeAlias = Callable[[Arguments, Options, Any], Cost | None]

FREE: Final = Cost(0, 0, 0)
"""The cost of moving data."""

FLOATS: Final = frozenset(
    dtype
    for dtype in vars(torch).values()
    if isinstance(dtype, torch.dtype) and (dtype.is_floating_point or dtype.is_complex)
)
"""The types whose scalar operations count; work on integers and booleans counts nothing."""


def elements(tensor: torch.Tensor | None) -> int:
    """Return how many floating or complex numbers a tensor holds; 0 for None.

    Args:
        tensor: of any type.
    """
    return tensor.numel() if tensor is not None and tensor.dtype in FLOATS else 0


def contraction(macs: int, tensor: torch.Tensor, elementwise: int = 0) -> Cost:
    """Return the cost of multiply-adds, 2 FLOPs each; complex ones are 4 real ones each.

    Args:
        macs: multiply-adds of scalars.
        tensor: one of the factors, for its type.
        elementwise: scalar operations beside them.
    """
    if tensor.dtype.is_complex:
        macs *= 4
    return Cost(2 * macs, macs, elementwise)


def algorithm(flops: float, tensor: torch.Tensor) -> Cost:
    """Return the cost of a textbook algorithm; on complex numbers it is 4 times that on reals.

    Args:
        flops: of the algorithm on real numbers.
        tensor: what it works on, for its type.
    """
    return Cost(round(4 * flops if tensor.dtype.is_complex else flops), 0, 0)


def optional(args: Arguments, index: int, default: object = None) -> object:
    """Return a positional argument, or its default where the call ends before it.

    Args:
        args: the positional arguments.
        index: which one.
        default: its default.
    """
    return args[index] if index < len(args) else default


def given(args: Arguments, index: int) -> bool:
    """Return whether an optional tensor was given.

    Args:
        args: the positional arguments.
        index: which one.
    """
    return index < len(args) and args[index] is not None
