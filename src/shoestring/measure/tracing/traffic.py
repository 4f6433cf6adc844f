"""Bytes that one operation reads from memory and writes to it.

Every input is read once and every output written once, as by a kernel that keeps nothing from
the one before. What is not touched is not counted: elements of a table that are not looked up, a
dimension that is only expanded, what is overwritten without being read, views.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final, TypeAlias

import torch

from shoestring.measure.tracing.operators import Access

_PAIR: Final = 2

Numbered: TypeAlias = Sequence[tuple[int, torch.Tensor]]


def bytes_moved(
    access: Access,
    inputs: Numbered,
    outputs: Numbered,
    changed: Collection[int],
    sizes: Sequence[int],
) -> tuple[int, int]:
    """Return the bytes that one operation reads and the bytes that it writes.

    Args:
        access: how it touches memory.
        inputs: its tensors, each with the number of its storage, what it changes included.
        outputs: what it returned and what it changed, likewise.
        changed: storages that it changes in place.
        sizes: bytes of the storages, by number.

    Example:
        >>> x, y = torch.ones(3), torch.ones(3)
        >>> bytes_moved(Access.WHOLE, [(0, x), (0, x)], [(1, y)], (), [12, 12])
        (12, 12)
    """
    if access is Access.ALLOCATES:
        return 0, 0
    old = [index for index, _ in inputs]
    made = [(i, t) for i, t in outputs if i not in old or i in changed]
    if outputs and not made:
        return 0, 0  # a view
    written = _total(made, sizes)
    if access is Access.MAKES:
        return 0, written
    if access is Access.WHOLE or not inputs:
        return _total(inputs, sizes), written
    if access is Access.OVERWRITES:
        return _total([(i, t) for i, t in inputs if i not in changed], sizes), written
    first, others = inputs[0][1], _total(inputs[1:], sizes)
    if access is Access.GATHERS:
        return others + written, written
    if access is Access.BAGS:
        rows = inputs[1][1].numel()
        return others + rows * first.shape[-1] * first.element_size(), written
    put = sum(t.numel() * t.element_size() for _, t in inputs[1:] if t.dtype is first.dtype)
    return others + min(put, written), min(put, written)


def _total(tensors: Numbered, sizes: Sequence[int]) -> int:
    """Return the bytes of tensors; of those in one storage, not more than it has."""
    if len(tensors) == 1:
        index, tensor = tensors[0]
        return min(tensor.numel() * tensor.element_size(), sizes[index])
    if len(tensors) == _PAIR:
        (one, first), (other, second) = tensors
        if one != other:
            return min(first.numel() * first.element_size(), sizes[one]) + min(
                second.numel() * second.element_size(), sizes[other]
            )
    sums: dict[int, int] = {}
    for index, tensor in tensors:
        sums[index] = sums.get(index, 0) + tensor.numel() * tensor.element_size()
    return sum(min(size, sizes[index]) for index, size in sums.items())
