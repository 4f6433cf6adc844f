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
    wide, count = _WIDE[flat.dtype], flat.numel()
    words = -(-count // 64)
    settled = len(keys) - stages.after
    between = (wide(stages.decay), stages.before, wide(stages.radius), settled)
    terms = (np.array(keys, np.uint64), np.array(scales, wide), *between)
    if flat.dtype is torch.bfloat16:
        bits = flat.view(torch.int16).numpy().view(np.uint16)
        noise = (np.uint64(rounding or 0), rounding is not None)
        share(lambda first, last: loops.add_half(bits, *terms, first, last, *noise), words, count)
    else:
        array = flat.numpy()
        share(lambda first, last: loops.add_plain(array, *terms, first, last), words, count)


def takes_together(tensor: torch.Tensor) -> bool:
    """Return whether a tensor can be one of those of a call of `add_signs_to_all`.

    Args:
        tensor: of any kind.
    """
    return (
        type(tensor) in (torch.Tensor, torch.nn.Parameter)
        and tensor.device.type == "cpu"
        and tensor.dtype is torch.float32
        and tensor.is_contiguous()
        and tensor.numel() > 0
        and (tensor.numel() < PARALLEL or torch.get_num_threads() == 1)
        and _loops() is not None
    )


def add_signs_to_all(
    tensors: Sequence[torch.Tensor],
    keys: Sequence[Sequence[int]],
    scales: Sequence[Sequence[float]],
    stages: Sequence[Stages],
) -> None:
    """Add streams to many tensors; see `streams.add_signs_to_all_`.

    Args:
        tensors: that `takes_together` accepts.
        keys: of the streams, for each tensor as many.
        scales: one for each.
        stages: of each tensor; the same number of terms before and after.
    """
    loops = _loops()
    assert loops is not None
    count, terms = len(tensors), len(keys[0])
    loops.add_plain_all(
        np.array([tensor.data_ptr() for tensor in tensors], np.int64),
        np.array([tensor.numel() for tensor in tensors], np.int64),
        np.array(keys, np.uint64).reshape(count, terms),
        np.array(scales, np.float32).reshape(count, terms),
        np.array([s.decay for s in stages], np.float32),
        stages[0].before,
        np.array([s.radius for s in stages], np.float32),
        terms - stages[0].after,
    )


def share(loop: Callable[[int, int], object], parts: int, elements: int) -> None:
    """Run a loop over all parts of a tensor, by several threads where there are many elements.

    Args:
        loop: over some parts, from one to before another.
        parts: how many there are.
        elements: of the tensor.
    """
    threads = torch.get_num_threads() if elements >= PARALLEL else 1
    if threads == 1:
        loop(0, parts)
        return
    edges = [parts * k // threads for k in range(threads + 1)]
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
