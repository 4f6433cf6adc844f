"""Activations with one minimum: the derivative from the output and one bit, which side it is."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from shoestring.activations.fewbit.functions import Function, function
from shoestring.kernels.streams_native import share

BRANCHED: Final = ("gelu", "gelu_tanh", "silu", "mish")
"""Those that fall to a minimum from 0 and then rise to x."""

_CELLS: Final = 4096
_TOP: Final = 32.0
"""Output from which the derivative is 1 to 13 digits."""
_FAR: Final = -750.0
"""Input from which the output is 0 in float64."""
_CHUNK: Final = 1 << 16
_WIDE: Final = (torch.float32, torch.float64)

Floats = npt.NDArray[np.float64]


class Branches(NamedTuple):
    """The derivative as a table over the output, left of the minimum and right of it.

    With y the output and m the lowest one, a place in the table is C w, with C its cells and

        w = sqrt(1 - sqrt(y / m)) to the left,   w = sqrt((y - m) / (32 - m)) to the right:

    over these the derivative has bounded second derivatives, so that a straight line within each
    cell is wrong by at most 6e-7.

    Attributes:
        minimum: where the function is lowest.
        lowest: its value there; below 0.
        table: C + 1 values left of the minimum, C + 1 right of it, the last one twice.
    """

    minimum: float
    lowest: float
    table: Floats


@functools.cache
def branches(name: str) -> Branches:
    """Return the table of an activation.

    Args:
        name: one of `BRANCHED`.
    """
    known = function(name)

    def value(x: Floats) -> Floats:
        found: Floats = known(torch.from_numpy(x)).numpy()
        return found

    bottom = _zero(known.derivative_at, np.array([-3.0]), np.array([-0.1]))
    minimum, lowest = float(bottom[0]), float(value(bottom)[0])
    w = np.linspace(0, 1, _CELLS + 1)
    far, at = np.full_like(w, _FAR), np.full_like(w, minimum)
    deep = lowest * (1 - w * w) ** 2
    left = known.derivative_at(_zero(lambda x: deep - value(x), far, at))
    high_up = lowest + w * w * (_TOP - lowest)
    right = known.derivative_at(_zero(lambda x: value(x) - high_up, at, np.full_like(w, _TOP + 1)))
    left[0] = right[0] = left[-1] = 0.0
    return Branches(minimum, lowest, np.concatenate([left, right, right[-1:]]))


def _zero(rising: Callable[[Floats], Floats], low: Floats, high: Floats) -> Floats:
    """Return where a rising function crosses zero, by bisection to the last bit."""
    for _ in range(80):
        middle = (low + high) / 2
        above = rising(middle) > 0
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return (low + high) / 2


def multiply(
    grad: torch.Tensor, y: torch.Tensor, packed: torch.Tensor, name: str, order: Sequence[int] = ()
) -> torch.Tensor:
    """Return the gradient of an activation's input.

    Near a minimum the rounding of y decides: the derivative is off by its root there, which is
    1e-4 in float32. Where y is not a number the result may be one.

    Args:
        grad: of the output.
        y: the output.
        packed: for each element whether the input was above the minimum, as codes of one bit.
        name: one of `BRANCHED`.
        order: of the dimensions in memory, for the codes; by default row by row.

    Returns:
        Like y, dense in the order given.
    """
    out = like(y, order)
    flat = [flattened(tensor, order) for tensor in (out, grad, y)]
    found, wide = branches(name), torch.float64 if y.dtype is torch.float64 else torch.float32
    native = _loops() is not None and y.device.type == "cpu"
    if native and y.dtype is wide:
        _native(flat, packed, found)
        return out
    for start in range(0, y.numel(), _CHUNK):
        here, above, below = (part[start : start + _CHUNK] for part in flat)
        bits = packed[start // 8 : (start + _CHUNK) // 8]
        if native:
            result = torch.empty_like(below, dtype=wide)
            _native([result, above.to(wide), below.to(wide)], bits, found)
        else:
            result = above * _slopes(below.to(wide), bits, found)
        here.copy_(result)
    return out


def multiply_plain(
    grad: torch.Tensor, y: torch.Tensor, known: Function, order: Sequence[int] = ()
) -> torch.Tensor:
    """Return the gradient of the input of an activation that its output decides.

    Args:
        grad: of the output.
        y: the output.
        known: the activation; with an ``output_slope``.
        order: of the dimensions in memory; by default row by row.
    """
    out = like(y, order)
    parts = [flattened(tensor, order).split(_CHUNK) for tensor in (out, grad, y)]
    for here, above, below in zip(*parts, strict=True):
        wide = torch.float64 if y.dtype is torch.float64 else torch.float32
        here.copy_(known.from_output(below.to(wide)).mul_(above))
    return out


def like(x: torch.Tensor, order: Sequence[int]) -> torch.Tensor:
    """Return an empty tensor of the same shape, dense in an order.

    Args:
        x: any tensor.
        order: of the dimensions, slowest first; none for row by row.
    """
    if not order:
        return x.new_empty(x.shape)
    back = [0] * len(order)
    for place, dim in enumerate(order):
        back[dim] = place
    return x.new_empty([x.shape[dim] for dim in order]).permute(back)


def flattened(x: torch.Tensor, order: Sequence[int]) -> torch.Tensor:
    """Return a tensor's elements in an order; without a copy where they lie so.

    Args:
        x: any tensor.
        order: of the dimensions, slowest first; none for row by row.
    """
    detached = x.detach()
    return (detached.permute(tuple(order)) if order else detached).reshape(-1)


def _native(flat: Sequence[torch.Tensor], packed: torch.Tensor, found: Branches) -> None:
    loops, count = _loops(), flat[0].numel()
    assert loops is not None
    wide = np.float32 if flat[0].dtype is torch.float32 else np.float64
    arrays = [tensor.numpy() for tensor in (*flat, packed, _table(found, flat[0].dtype))]
    numbers = (_CELLS, 1 / found.lowest, found.lowest, 1 / (_TOP - found.lowest))
    terms = (*arrays, *map(wide, numbers))
    share(lambda first, last: loops.multiply(*terms, first, last), -(-count // 64), count)


def _slopes(y: torch.Tensor, packed: torch.Tensor, found: Branches) -> torch.Tensor:
    """Return the derivatives, by plain operators."""
    shifts = torch.arange(8, dtype=torch.uint8, device=y.device)
    bits = packed.unsqueeze(1) >> shifts & 1
    right = bits.reshape(-1)[: y.numel()].bool()
    left_share = 1 - (y * (1 / found.lowest)).clamp(min=0).sqrt()
    right_share = (y - found.lowest) * (1 / (_TOP - found.lowest))
    share_of = torch.where(right, right_share, left_share).nan_to_num(1.0).clamp(0, 1)
    place = right.to(y.dtype) * (_CELLS + 1) + _CELLS * share_of.sqrt()
    at = place.long()
    table = _table(found, y.dtype).to(y.device)
    below = table[at]
    return below + (table[at + 1] - below) * (place - at)


def _table(found: Branches, dtype: torch.dtype) -> torch.Tensor:
    return torch.from_numpy(found.table).to(dtype)


@functools.cache
def _loops() -> types.ModuleType | None:
    """Import what numba compiles; None where numba cannot be imported."""
    try:
        from shoestring.activations.fewbit import branches_numba
    except ImportError:
        return None
    return branches_numba
