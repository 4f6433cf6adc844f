"""Streams of random signs by torch's own operators, on every device."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final

import torch

from shoestring.kernels.stages import Stages

CHUNK: Final = 1 << 16
"""Elements that are worked on at a time: what is held beside the tensor stays under 1 MiB."""

_HALF: Final = 1 << 63
_LEAST_EXPONENT: Final = {torch.bfloat16: -126, torch.float16: -14}
_FRACTION_BITS: Final = {torch.bfloat16: 7, torch.float16: 10}


def words(key: int, count: int, first: int, device: torch.device) -> torch.Tensor:
    """Return words of a stream as int64, whose arithmetic wraps around.

    Args:
        key: of the stream.
        count: how many.
        first: index of the first.
        device: of the result.
    """
    index = torch.arange(first + 1, first + count + 1, dtype=torch.int64, device=device)
    return words_at(signed(key), index)


def words_at(keys: torch.Tensor | int, index: torch.Tensor) -> torch.Tensor:
    """Return words of several streams at once.

    Args:
        keys: of the streams, `signed`; broadcast with the others.
        index: of each word in its stream, from 1 on; int64, overwritten.
    """
    x = index.mul_(_GOLDEN).add(keys)
    x = x.bitwise_xor_(shifted(x, 30)).mul_(_FIRST)
    x = x.bitwise_xor_(shifted(x, 27)).mul_(_SECOND)
    return x.bitwise_xor_(shifted(x, 31))


def signs(
    key: int, count: int, first: int, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """Return signs of a stream; a bit that is set is -1.

    Args:
        key: of the stream.
        count: how many.
        first: index of the first word.
        dtype: of the result.
        device: of the result.
    """
    return bits_as_signs(words(key, -(-count // 64), first, device), dtype)[:count]


def bits_as_signs(words: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return 64 signs of each word, in one dimension; a bit that is set is -1.

    Args:
        words: int64, contiguous.
        dtype: of the result.
    """
    return _table(dtype, words.device)[words.view(torch.uint8).int()].view(-1)


def add_signs(
    flat: torch.Tensor,
    keys: Sequence[int],
    scales: Sequence[float],
    stages: Stages,
    rounding: int | None,
) -> None:
    """Add streams to a tensor of one dimension; see `streams.add_signs_`.

    Args:
        flat: contiguous.
        keys: of the streams.
        scales: one for each.
        stages: what else is done.
        rounding: key of the stream that rounds at random, or None.
    """
    half = flat.dtype in _FRACTION_BITS
    for start in range(0, flat.numel(), CHUNK):
        part = flat[start : start + CHUNK]
        sums = part.float() if half else part
        for index in range(len(keys) + 1):
            if index == stages.before:
                sums.mul_(stages.decay)
            if index == len(keys) - stages.after and stages.radius > 0:
                outward = torch.where(sums >= 0, stages.radius, -stages.radius).to(sums.dtype)
                sums.add_(outward).sub_(outward)
            if index < len(keys):
                z = signs(keys[index], part.numel(), start // 64, sums.dtype, flat.device)
                sums.add_(z, alpha=scales[index])
        if half and rounding is not None:
            drawn = noise(rounding, part.numel(), start, flat.device)
            sums = round_at_random(sums, part.dtype, drawn)
        if half:
            part.copy_(sums)


def round_at_random(x: torch.Tensor, dtype: torch.dtype, drawn: torch.Tensor) -> torch.Tensor:
    """Return numbers of a narrower dtype whose mean over the noise is what is rounded.

    Args:
        x: in float32.
        dtype: bfloat16 or float16.
        drawn: evenly spread over [0, 1).

    Returns:
        Numbers of `dtype`, still in float32; infinite and undefined ones as they were.
    """
    exponent = torch.frexp(x).exponent.sub_(1).clamp_(min=_LEAST_EXPONENT[dtype])
    exponent.sub_(_FRACTION_BITS[dtype])
    # By parts: a scale of 2^133, say, is no float32.
    half = exponent // 2
    steps = torch.ldexp(torch.ldexp(x.abs(), -half), half - exponent)
    rounded = torch.ldexp(torch.ldexp((steps + drawn).floor_(), half), exponent - half)
    return torch.where(x.isfinite(), rounded.copysign_(x), x)


def noise(key: int, count: int, start: int, device: torch.device) -> torch.Tensor:
    """Return numbers in [0, 1): 16 bits of a stream for each.

    Args:
        key: of the stream.
        count: how many.
        start: index of the first; a multiple of 4.
        device: of the result.
    """
    assert start % 4 == 0
    found = words(key, -(-count // 4), start // 4, device).view(torch.int16)[:count]
    return found.int().bitwise_and_(0xFFFF).float().mul_(2.0**-16)


@functools.cache
def _table(dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Return the eight signs of each byte."""
    bits = torch.arange(256).unsqueeze(1).bitwise_right_shift(torch.arange(8)).bitwise_and(1)
    return (1 - 2 * bits).to(device, dtype)


def shifted(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Return numbers shifted right, with zeros for what comes in on the left.

    Args:
        x: int64.
        bits: how far.
    """
    return x.bitwise_right_shift(bits).bitwise_and_((1 << 64 - bits) - 1)


def signed(number: int) -> int:
    """Return the number of int64 that has the bits of one from 0 to 2^64 - 1.

    Args:
        number: whose bits.
    """
    return (number + _HALF) % (2 * _HALF) - _HALF


_GOLDEN: Final = signed(0x9E3779B97F4A7C15)
_FIRST: Final = signed(0xBF58476D1CE4E5B9)
_SECOND: Final = signed(0x94D049BB133111EB)
