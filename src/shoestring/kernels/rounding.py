"""Additions to weights of few bits, rounded up or down at random so that the mean is right."""

from __future__ import annotations

import torch

from shoestring.kernels.streams_eager import CHUNK, noise, round_at_random


def add_rounded_(
    tensor: torch.Tensor, other: torch.Tensor, *, scale: float, decay: float = 1.0, key: int
) -> None:
    """Add a multiple of one tensor to another: ``x <- decay x + scale y``.

    Below float32 the sum is made in float32 and rounded at random; else it is torch's.

    Args:
        tensor: x, changed in place.
        other: y, of the same shape, in float32 or float64.
        scale: the factor.
        decay: what x is multiplied with.
        key: of the stream that rounds.

    Example:
        >>> x = torch.zeros(3, dtype=torch.bfloat16)
        >>> add_rounded_(x, torch.ones(3), scale=0.5, key=1)
        >>> x.tolist()
        [0.5, 0.5, 0.5]
    """
    if tensor.dtype not in (torch.bfloat16, torch.float16):
        tensor.mul_(decay).add_(other, alpha=scale)
        return
    flat = tensor.detach().reshape(-1)
    rows = other.reshape(-1)
    for start in range(0, flat.numel(), CHUNK):
        part = flat[start : start + CHUNK]
        sums = part.float().mul_(decay).add_(rows[start : start + CHUNK], alpha=scale)
        drawn = noise(key, part.numel(), start, tensor.device)
        part.copy_(round_at_random(sums, tensor.dtype, drawn))
    if flat.data_ptr() != tensor.data_ptr():
        tensor.detach().copy_(flat.view(tensor.shape))
    torch.autograd.graph.increment_version(tensor)
