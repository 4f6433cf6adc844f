"""Streams of random signs: each found by its index alone, the same whoever computes it.

Sign ``e`` of the stream with key ``k`` is bit ``e mod 64`` of word ``e div 64``, and word ``w`` is
``mix(k + (w + 1) * golden)``: splitmix64, entered at any place. So no stream has a state, no other
generator is touched, and the signs depend neither on threads nor on how a tensor is cut.

Source: Steele, Lea, Flood, Fast splittable pseudorandom number generators (OOPSLA 2014); the
constants of `mix` are Stafford's variant 13.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch.autograd.graph import increment_version

from shoestring.core.errors import InputError
from shoestring.kernels import streams_eager, streams_native
from shoestring.kernels.stages import NOTHING, Stages

WORD: Final = 64
"""Signs in a word: where a stream may be entered."""

_BITS: Final = (1 << 64) - 1
_GOLDEN: Final = 0x9E3779B97F4A7C15
_FLOATS: Final = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def mix(number: int) -> int:
    """Return 64 bits of which each depends on all of a number's.

    Args:
        number: from 0 to 2^64 - 1.
    """
    number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 & _BITS
    number = (number ^ number >> 27) * 0x94D049BB133111EB & _BITS
    return number ^ number >> 31


def stream_key(*numbers: int) -> int:
    """Return the key of the stream that some numbers name, such as seed, step and tensor.

    Args:
        numbers: in an order that counts.
    """
    key = 0
    for number in numbers:
        key = mix((mix((key + _GOLDEN) & _BITS) + number) & _BITS)
    return key


def signs(
    key: int,
    count: int,
    *,
    start: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Return signs of a stream, as a tensor of 1 and -1.

    Args:
        key: of the stream.
        count: how many.
        start: index of the first; a multiple of 64.
        dtype: of the result.
        device: of the result.

    Example:
        >>> signs(stream_key(0), 4).abs().tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    assert start % WORD == 0
    return streams_eager.signs(key, count, start // WORD, dtype, torch.device(device))


def add_signs_(
    tensor: torch.Tensor,
    keys: Sequence[int],
    scales: Sequence[float],
    *,
    stages: Stages = NOTHING,
    rounding: int | None = None,
) -> None:
    """Add streams of signs to a tensor, in one pass: ``x <- x + sum_j scale_j z_j``.

    The terms are added one after the other, each rounded to the tensor's dtype; below float32 the
    sum is made in float32 and rounded once. So one call gives the same bits as a call for each
    term, and so do all forms of it.

    Args:
        tensor: of any shape and strides; its elements are numbered row by row. Its version is
            raised, so that autograd notices.
        keys: of the streams.
        scales: one for each.
        stages: what else is done between the terms.
        rounding: key of the stream that rounds up or down at random, so that the mean is right;
            None rounds to nearest. Below float32 only.

    Raises:
        InputError: the tensor is not of a floating dtype.

    Example:
        >>> x = torch.zeros(3)
        >>> add_signs_(x, [7], [0.5])
        >>> x.abs().tolist()
        [0.5, 0.5, 0.5]
    """
    assert len(keys) == len(scales) >= stages.before + stages.after
    if tensor.dtype not in _FLOATS:
        raise InputError(
            f"signs cannot be added to a tensor of {tensor.dtype}.",
            hint="leave it out, or perturb what is computed from it.",
        )
    if tensor.numel() == 0:
        return
    with torch.no_grad():
        flat = tensor.detach().reshape(-1).contiguous()  # a copy where rows are not in one piece
        form = streams_native if streams_native.takes(flat) else streams_eager
        form.add_signs(flat, keys, scales, stages, rounding)
        if flat.data_ptr() != tensor.data_ptr():
            tensor.detach().copy_(flat.view(tensor.shape))
    increment_version(tensor)


def add_signs_to_all_(
    tensors: Sequence[torch.Tensor],
    keys: Sequence[Sequence[int]],
    scales: Sequence[Sequence[float]],
    *,
    stages: Sequence[Stages],
) -> None:
    """Add streams of signs to tensors, as `add_signs_` does to one: in one call where it can be.

    A call costs as much as some ten thousand elements, and most tensors of a model are smaller.

    Args:
        tensors: of any shapes and strides.
        keys: of the streams of each tensor; for all as many.
        scales: one for each key.
        stages: of each tensor; for all as many terms before and after.

    Raises:
        InputError: a tensor is not of a floating dtype.

    Example:
        >>> x, y = torch.zeros(2), torch.zeros(3)
        >>> add_signs_to_all_([x, y], [[7], [8]], [[0.5], [2.0]], stages=[NOTHING, NOTHING])
        >>> x.abs().tolist(), y.abs().tolist()
        ([0.5, 0.5], [2.0, 2.0, 2.0])
    """
    assert len({(len(k), s.before, s.after) for k, s in zip(keys, stages, strict=True)}) <= 1
    together = [k for k, tensor in enumerate(tensors) if streams_native.takes_together(tensor)]
    if len(together) > 1:
        some = [tensors[k] for k in together]
        streams_native.add_signs_to_all(
            some,
            [keys[k] for k in together],
            [scales[k] for k in together],
            [stages[k] for k in together],
        )
        increment_version(some)
    else:
        together = []
    for k in sorted(set(range(len(tensors))) - set(together)):
        add_signs_(tensors[k], keys[k], scales[k], stages=stages[k])
