"""Obvious forms of LOZO, SubspaceZOMuon, HiZOO and SparseZO, in float64, given what was drawn.

Tensors come in lists: one entry for each parameter. What is drawn comes by step, then by direction
of the step, then by parameter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

Tensors = list[torch.Tensor]
Loss = Callable[[Tensors], float]


def matrix(tensor: torch.Tensor) -> torch.Tensor:
    """[out, the rest]."""
    return tensor.reshape(tensor.shape[0], -1)


def moved(xs: Tensors, zs: Tensors, scale: float) -> Tensors:
    """x + scale z."""
    return [x + scale * z.reshape(x.shape) for x, z in zip(xs, zs, strict=True)]


def slope(f: Loss, xs: Tensors, zs: Tensors, eps: float, two_sided: bool = True) -> float:
    """(f(x + eps z) - f(x - eps z)) / (2 eps), or from one side."""
    ahead = f(moved(xs, zs, eps))
    if two_sided:
        return (ahead - f(moved(xs, zs, -eps))) / (2 * eps)
    return (ahead - f(xs)) / eps


def lozo(
    xs: Tensors,
    f: Loss,
    draws: Sequence[Sequence[Sequence[tuple[torch.Tensor, torch.Tensor | None]]]],
    *,
    lr: float,
    eps: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
) -> Tensors:
    """Drawn are (U, V) for a matrix, (z, None) for a vector.

    Z = U V^T / sqrt r; N <- mu N + (1 - mu) mean rho U / sqrt r; X <- X - lr N V^T. Where V is
    replaced by V': N <- N V^T V' / n.
    """
    averages: list[torch.Tensor] = [torch.zeros(())] * len(xs)
    last: list[torch.Tensor | None] = [None] * len(xs)
    for drawn in draws:
        means = [torch.zeros((), dtype=torch.float64)] * len(xs)
        for direction in drawn:
            zs = [u if v is None else u @ v.T / math.sqrt(u.shape[1]) for u, v in direction]
            rho = slope(f, xs, zs, eps)
            for k, (u, v) in enumerate(direction):
                root = 1.0 if v is None else math.sqrt(u.shape[1])
                means[k] = means[k] + rho * u / root / len(drawn)
        steps = []
        for k, (_, v) in enumerate(drawn[0]):
            old = last[k]
            if v is not None and old is not None and not torch.equal(v, old):
                averages[k] = averages[k] @ old.T @ v / v.shape[0]
            last[k] = v
            averages[k] = momentum * averages[k] + (1 - momentum) * means[k]
            steps.append(averages[k] if v is None else averages[k] @ v.T)
        xs = moved([(1 - lr * weight_decay) * x for x in xs], steps, -lr)
    return xs


def subspace_muon(
    xs: Tensors,
    f: Loss,
    draws: Sequence[Sequence[Sequence[tuple[torch.Tensor, torch.Tensor | None]]]],
    *,
    lr: float,
    eps: float,
    vector_ratio: float,
    two_sided: bool = False,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
) -> Tensors:
    """Drawn are (Psi, P) for a matrix, (z, None) for a vector.

    Z = sqrt(m / r) P Psi; M <- mu M + mean rho Psi; X <- X - lr P U V^T, where M = U S V^T. Where
    P is replaced by P': M <- P'^T P M.
    """
    sums: list[torch.Tensor] = [torch.zeros(())] * len(xs)
    last: list[torch.Tensor | None] = [None] * len(xs)
    for drawn in draws:
        means = [torch.zeros((), dtype=torch.float64)] * len(xs)
        for direction in drawn:
            zs = [
                psi if p is None else math.sqrt(p.shape[0] / p.shape[1]) * p @ psi
                for psi, p in direction
            ]
            rho = slope(f, xs, zs, eps, two_sided)
            means = [
                g + rho * psi / len(drawn) for g, (psi, _) in zip(means, direction, strict=True)
            ]
        steps = []
        for k, (_, p) in enumerate(drawn[0]):
            old = last[k]
            if p is not None and old is not None and not torch.equal(p, old):
                sums[k] = p.T @ old @ sums[k]
            last[k] = p
            sums[k] = momentum * sums[k] + means[k]
            if p is None:
                steps.append(vector_ratio * sums[k])
            else:
                u, _, vt = torch.linalg.svd(sums[k], full_matrices=False)
                steps.append(p @ u @ vt)
        xs = moved([(1 - lr * weight_decay) * x for x in xs], steps, -lr)
    return xs


def hizoo(
    xs: Tensors,
    f: Loss,
    draws: Sequence[Sequence[Tensors]],
    *,
    lr: float,
    eps: float,
    alpha: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
) -> tuple[Tensors, Tensors]:
    """Drawn are z; h <- (1 - a) h + a mean |f+ + f- - 2 f| h z^2 / (2 eps^2)."""
    hs = [torch.ones_like(x) for x in xs]
    steps = [torch.zeros_like(x) for x in xs]
    for drawn in draws:
        sums = [torch.zeros_like(x) for x in xs]
        squares = [torch.zeros_like(x) for x in xs]
        for z in drawn:
            scaled = [each / h.sqrt() for each, h in zip(z, hs, strict=True)]
            ahead, here, behind = (f(moved(xs, scaled, sign * eps)) for sign in (1, 0, -1))
            bend = abs(ahead + behind - 2 * here) / (2 * eps**2)
            for k, each in enumerate(z):
                sums[k] += (ahead - behind) / (2 * eps) * each / len(drawn)
                squares[k] += bend * hs[k] * each**2 / len(drawn)
        hs = [(1 - alpha) * h + alpha * square for h, square in zip(hs, squares, strict=True)]
        estimates = [total / h.sqrt() for total, h in zip(sums, hs, strict=True)]
        steps = [momentum * m + g for m, g in zip(steps, estimates, strict=True)]
        xs = moved([(1 - lr * weight_decay) * x for x in xs], steps, -lr)
    return xs, hs


def smallest(x: torch.Tensor, sparsity: float) -> torch.Tensor:
    """1 where |x| is among the smallest of its tensor, 0 elsewhere."""
    magnitudes = sorted(x.abs().flatten().tolist())
    count = max(1, round((1 - sparsity) * len(magnitudes)))
    return (x.abs() <= magnitudes[count - 1]).to(x.dtype)


def sparse(
    xs: Tensors,
    f: Loss,
    draws: Sequence[Sequence[Tensors]],
    *,
    lr: float,
    eps: float,
    sparsity: float,
    interval: int,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
) -> Tensors:
    """Drawn are z, with whatever there is outside of the mask, where nothing changes."""
    xs, masks = [*xs], [*xs]
    sums = [torch.zeros_like(x) for x in xs]
    for step, drawn in enumerate(draws):
        if step % interval == 0:
            masks = [smallest(x, sparsity) for x in xs]
        estimates = [torch.zeros_like(x) for x in xs]
        for z in drawn:
            inside = [mask * each for mask, each in zip(masks, z, strict=True)]
            rho = slope(f, xs, inside, eps)
            for k, each in enumerate(inside):
                estimates[k] += rho * each / len(drawn)
        for k, mask in enumerate(masks):
            sums[k] = torch.where(mask > 0, momentum * sums[k] + estimates[k], sums[k])
            xs[k] = xs[k] - lr * mask * (weight_decay * xs[k] + sums[k])
    return xs
