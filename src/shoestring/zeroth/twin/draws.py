"""The signs of many streams in one pass: a step needs some of every parameter's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from shoestring.kernels.streams_eager import bits_as_signs, signed, words_at


class Stream(NamedTuple):
    """The first signs of a stream.

    Attributes:
        key: of the stream.
        length: how many.
        size: what each is multiplied with.
    """

    key: int
    length: int
    size: float


def draw(streams: Sequence[Stream], dtype: torch.dtype) -> list[torch.Tensor]:
    """Return the first signs of each stream, as `kernels.streams.signs` does one by one.

    Args:
        streams: all of them.
        dtype: float32 or float64.

    Returns:
        Tensors on the CPU, parts of one.

    Example:
        >>> two = draw([Stream(7, 2, 1.0), Stream(8, 1, 0.5)], torch.float32)
        >>> [found.abs().tolist() for found in two]
        [[1.0, 1.0], [0.5]]
    """
    if not streams:
        return []
    counts = torch.tensor([-(-stream.length // 64) for stream in streams])
    ends = counts.cumsum(0)
    index = torch.arange(1, int(ends[-1]) + 1) - (ends - counts).repeat_interleave(counts)
    keys = torch.tensor([signed(stream.key) for stream in streams]).repeat_interleave(counts)
    flat = bits_as_signs(words_at(keys, index), dtype)
    sizes = torch.tensor([stream.size for stream in streams], dtype=dtype)
    flat.view(-1, 64).mul_(sizes.repeat_interleave(counts).unsqueeze(1))
    starts = ((ends - counts) * 64).tolist()
    return [flat[s : s + stream.length] for s, stream in zip(starts, streams, strict=True)]
