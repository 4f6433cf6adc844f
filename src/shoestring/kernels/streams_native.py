"""Streams of random signs in native code for the CPU, where numba is at hand.

Nothing is imported or compiled before the first call. A thread works on words of its own, so the
bits do not depend on the number of threads; no thread outlives a call, so a process that was
forked may make one.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
import torch

from shoestring.kernels.stages import Stages

PARALLEL: Final = 1 << 20
"""Elements from which on several threads share the work."""

_WIDE: Final = {torch.float32: np.float32, torch.float64: np.float64, torch.bfloat16: np.float32}


def takes(flat: torch.Tensor) -> bool:
    """Return whether there is native code for a tensor.

    Args:
        flat: contiguous, of one dimension.
    """
    return flat.device.type == "cpu" and flat.dtype in _WIDE and _loops() is not None


def add_signs(
    flat: torch.Tensor,
    keys: Sequence[int],
    scales: Sequence[float],
    stages: Stages,
    rounding: int | None,
) -> None:
    """Add streams to a tensor of one dimension; see `streams.add_signs_`.

    Args:
        flat: one that `takes` accepts.
        keys: of the streams.
        scales: one for each.
        stages: what else is done.
        rounding: key of the stream that rounds at random, or None.
    """
    loops = _loops()
    assert loops is not None
    wide = _WIDE[flat.dtype]
    settled = len(keys) - stages.after
    between = (wide(stages.decay), stages.before, wide(stages.radius), settled)
    terms = (np.array(keys, np.uint64), np.array(scales, wide), *between)
    if flat.dtype is torch.bfloat16:
        bits = flat.view(torch.int16).numpy().view(np.uint16)
        noise = (np.uint64(rounding or 0), rounding is not None)
        _share(lambda first, last: loops.add_half(bits, *terms, first, last, *noise), flat.numel())
    else:
        array = flat.numpy()
        _share(lambda first, last: loops.add_plain(array, *terms, first, last), flat.numel())


def _share(loop: Callable[[int, int], object], elements: int) -> None:
    """Run a loop over all words, by several threads where there are many."""
    words = -(-elements // 64)
    threads = torch.get_num_threads() if elements >= PARALLEL else 1
    if threads == 1:
        loop(0, words)
        return
    edges = [words * k // threads for k in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(loop, edges[:-1], edges[1:]))


@functools.cache
def _loops() -> types.ModuleType | None:
    """Import what numba compiles; None where numba cannot be imported."""
    try:
        from shoestring.kernels import streams_numba
    except ImportError:
        return None
    return streams_numba
