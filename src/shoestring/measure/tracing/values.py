"""Which operations of a fake step are run on values all the same.

Masks, positions and labels are small integers, and models look at them: one with no padding is
left out, and attention takes another kernel. So small integers keep their values while floating
tensors have none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

import torch

from shoestring.measure._torch import FakeTensor

MOST: Final = 2**20
"""Elements up to which integers keep their values."""

_INTEGERS: Final = frozenset(
    {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
)
_FACTORIES: Final = frozenset(
    f"aten.{name}"
    for name in (
        *("arange.default", "arange.start", "arange.start_step", "full.default"),
        *("ones.default", "zeros.default", "scalar_tensor.default", "lift_fresh.default"),
    )
)


def has_values(tensor: torch.Tensor) -> bool:
    """Whether a tensor is one of those that keep their values.

    Args:
        tensor: any.
    """
    return (
        tensor.dtype in _INTEGERS
        and not isinstance(tensor, FakeTensor)
        and not tensor.is_meta
        and tensor.layout is torch.strided
        and tensor.numel() <= MOST
    )


def runs_on_values(
    func: torch._ops.OpOverload,
    args: tuple[object, ...],
    kwargs: Mapping[str, object],
    inputs: list[torch.Tensor],
) -> bool:
    """Whether an operation has nothing but small integers to work on and to make.

    Args:
        func: the operation.
        args: of it.
        kwargs: of it.
        inputs: the tensors among those.
    """
    dtype = kwargs.get("dtype")
    if dtype is not None and dtype not in _INTEGERS:
        return False
    if not inputs:
        return str(func) in _FACTORIES and _makes_few_integers(args, dtype)
    if not all(has_values(tensor) for tensor in inputs):
        return False
    rank = max(tensor.dim() for tensor in inputs)
    shapes = [(1,) * (rank - t.dim()) + tuple(t.shape) for t in inputs]
    largest = math.prod(max(sizes) for sizes in zip(*shapes, strict=True))
    return largest <= MOST and _sizes(args) <= MOST


def _makes_few_integers(args: tuple[object, ...], dtype: object) -> bool:
    numbers = [a for a in args if not isinstance(a, (list, tuple))]
    whole = all(type(n) is int or type(n) is bool for n in numbers)
    if dtype is None and not (whole and numbers):
        return False
    spans = [abs(n) for n in numbers if type(n) is int]
    return whole and _sizes(args) <= MOST and max(spans, default=0) <= MOST


def _sizes(args: Iterable[object]) -> int:
    """Return the elements that a list of sizes among the arguments asks for."""
    lists = [a for a in args if isinstance(a, (list, tuple)) and all(type(n) is int for n in a)]
    return max((math.prod(abs(n) for n in sizes) for sizes in lists if sizes), default=0)
