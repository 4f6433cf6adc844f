"""Obvious forms of zeroth-order steps that are made of several looks, in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from shoestring.kernels.streams import stream_key
from tests.oracles.streams import sign

Function = Callable[[torch.Tensor], torch.Tensor]


def signs(seed: int, draw: int, index: int, size: int) -> torch.Tensor:
    """Return the direction of signs that an optimizer draws for its only parameter."""
    key = stream_key(stream_key(seed, 0, draw, index), 0)
    return torch.tensor([sign(key, e) for e in range(size)], dtype=torch.float64)


def slope(f: Function, x: torch.Tensor, z: torch.Tensor, eps: float) -> float:
    """Return the two-sided slope of a function along a direction."""
    return float((f(x + eps * z) - f(x - eps * z)) / (2 * eps))


def estimate(f: Function, x: torch.Tensor, zs: Sequence[torch.Tensor], eps: float) -> torch.Tensor:
    """Return the mean of slope times direction."""
    total = torch.zeros_like(x)
    for z in zs:
        total += slope(f, x, z, eps) * z / len(zs)
    return total


def conservative(
    f: Function, x: torch.Tensor, zs: Sequence[torch.Tensor], lr: float, eps: float, decay: float
) -> tuple[torch.Tensor, float]:
    """Return the best of a step, its opposite and none, and which of them: 1, -1 or 0."""
    g = estimate(f, x, zs, eps)
    shrunk = (1 - lr * decay) * x
    candidates = [(x, 0.0), (shrunk - lr * g, 1.0), (shrunk + lr * g, -1.0)]
    return min(candidates, key=lambda candidate: float(f(candidate[0])))


def variance_reduced(
    batch: Function,
    x: torch.Tensor,
    anchor: torch.Tensor,
    zs: Sequence[torch.Tensor],
    eps: float,
    lasting: torch.Tensor,
) -> torch.Tensor:
    """Return the estimate over all data at the anchor, corrected by what a batch tells."""
    return estimate(batch, x, zs, eps) - estimate(batch, anchor, zs, eps) + lasting


def forward_slope(
    loss: torch.Tensor, params: Sequence[torch.Tensor], zs: Sequence[torch.Tensor]
) -> float:
    """Return the slope along a direction by way of the gradient, which forward mode never has."""
    gradients = torch.autograd.grad(loss, params, allow_unused=True)
    pairs = zip(gradients, zs, strict=True)
    return sum(float((g * z).sum()) for g, z in pairs if g is not None)
