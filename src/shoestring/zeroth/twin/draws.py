"""The signs of many streams in one pass: a step needs some of every parameter's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import torch

_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_FIRST: Final = np.uint64(0xBF58476D1CE4E5B9)
_SECOND: Final = np.uint64(0x94D049BB133111EB)


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
    words = np.array([-(-stream.length // 64) for stream in streams])
    ends = np.cumsum(words)
    index = np.arange(1, ends[-1] + 1) - np.repeat(ends - words, words)
    keys = np.repeat(np.array([stream.key for stream in streams], np.uint64), words)
    x = keys + index.astype(np.uint64) * _GOLDEN
    x = (x ^ x >> np.uint64(30)) * _FIRST
    x = (x ^ x >> np.uint64(27)) * _SECOND
    bits = np.unpackbits((x ^ x >> np.uint64(31)).astype("<u8").view(np.uint8), bitorder="little")
    wide = np.float64 if dtype is torch.float64 else np.float32
    sizes = np.repeat(np.array([stream.size for stream in streams], wide), words * 64)
    flat = torch.from_numpy(np.where(bits, -sizes, sizes))
    starts = ((ends - words) * 64).tolist()
    return [flat[s : s + stream.length] for s, stream in zip(starts, streams, strict=True)]
