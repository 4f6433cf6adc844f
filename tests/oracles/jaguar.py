"""JAGUAR SignSGD and JAGUAR Muon, entry by entry, in float64, with the paper's letters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch

Entry: TypeAlias = tuple[int, int, float]
"""A tensor, the place of an entry in it row by row, and the sign it is moved with."""

Loss: TypeAlias = Callable[[list[torch.Tensor]], torch.Tensor]


def moved(theta: list[torch.Tensor], entries: Sequence[Entry], by: float) -> list[torch.Tensor]:
    """Return the tensors with some of their entries moved."""
    found = [tensor.clone() for tensor in theta]
    for tensor, place, z in entries:
        found[tensor].view(-1)[place] += by * z
    return found


def slope(
    loss: Loss, theta: list[torch.Tensor], entries: Sequence[Entry], tau: float, two_sided: bool
) -> float:
    """Return rho: (f(theta + tau z) - f(theta - tau z)) / (2 tau), or from one side."""
    ahead = float(loss(moved(theta, entries, tau)))
    if two_sided:
        return (ahead - float(loss(moved(theta, entries, -tau)))) / (2 * tau)
    return (ahead - float(loss(theta))) / tau


def polar(matrix: torch.Tensor) -> torch.Tensor:
    """Return the sum of u v^T over the singular vectors whose singular value is not zero."""
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    found = torch.zeros_like(matrix)
    for k in range(len(s)):
        if s[k] > 1e-10 * s[0]:
            found += torch.outer(u[:, k], v[k])
    return found


def jaguar(
    theta: list[torch.Tensor],
    loss: Loss,
    draws: Sequence[Sequence[Sequence[Entry]]],
    *,
    lr: float,
    tau: float,
    beta: float,
    weight_decay: float = 0.0,
    two_sided: bool = True,
    muon: bool = False,
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return theta and m after as many steps as there are draws, each of one or more visits."""
    m = [torch.zeros_like(tensor) for tensor in theta]
    for visits in draws:
        slopes = [slope(loss, theta, entries, tau, two_sided) for entries in visits]
        for entries, rho in zip(visits, slopes, strict=True):
            for tensor, place, z in entries:
                row = m[tensor].view(-1)
                row[place] = beta * row[place] + (1 - beta) * rho * z
        for k, tensor in enumerate(theta):
            step = torch.sign(m[k])
            if muon and tensor.dim() > 1:
                step = polar(m[k].reshape(len(tensor), -1)).reshape(tensor.shape)
            theta[k] = (1 - lr * weight_decay) * tensor - lr * step
    return theta, m
