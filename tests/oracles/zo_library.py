"""What published zeroth-order code does: one right form, and each of its defects by name.

Written anew from how ZO-Library (99acd8c) and the trainer behind the JAGUAR paper behave. All is in
float64, on one vector that several tensors share.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch

Loss: TypeAlias = Callable[[torch.Tensor], torch.Tensor]

DESCENT = (
    "never added",
    "inverted",
    "another direction",
    "three directions",
    "one seed for each tensor",
    "times eps",
    "slopes averaged",
)
"""Defects of `descend`."""


def direction(seed: int, sizes: Sequence[int], *, anew: bool = False) -> torch.Tensor:
    """Return normal numbers for each tensor, of one generator or of one that begins anew."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for size in sizes:
        if anew:
            generator.manual_seed(seed)
        parts.append(torch.randn(size, generator=generator, dtype=torch.float64))
    return torch.cat(parts)


def descend(
    x: torch.Tensor,
    loss: Loss,
    sizes: Sequence[int],
    *,
    steps: int,
    lr: float,
    eps: float = 1e-3,
    q: int = 1,
    defect: str | None = None,
) -> torch.Tensor:
    """Return where gradient descent along random directions ends: x -= lr mean(rho_i z_i)."""
    for step in range(steps):
        seeds = [3 * (step * q + k) for k in range(q)]
        slopes, steps_along = [], []
        for seed in seeds:
            z = [direction(seed, sizes)] * 3
            if defect == "three directions":
                z = [direction(seed + k, sizes) for k in range(3)]
            size = 0.0 if defect == "never added" else eps
            x = x + size * z[0]
            ahead = float(loss(x))
            x = x - 2 * size * z[1]
            behind = float(loss(x))
            x = x + size * z[2]
            slopes.append((ahead - behind) / (2 * eps))
            steps_along.append(z[0])
            if defect == "another direction":
                steps_along[-1] = direction(seed + 1, sizes)
            if defect == "one seed for each tensor":
                steps_along[-1] = direction(seed, sizes, anew=True)
        if defect == "slopes averaged":
            slopes = [sum(slopes) / q] * q
        scale = lr * (eps if defect == "times eps" else 1.0)
        scale *= -1.0 if defect == "inverted" else 1.0
        for rho, z_i in zip(slopes, steps_along, strict=True):
            x = x - scale * rho * z_i / q
    return x


def sign_of_slope(ahead: torch.Tensor, behind: torch.Tensor, eps: float) -> torch.Tensor:
    """Return what the sign optimizer multiplies with: torch's sign, of a number of Python."""
    number: torch.Tensor = ((ahead - behind) / (2 * eps)).item()
    return torch.sign(number)


def rates_copied(lr: float) -> tuple[torch.optim.Optimizer, Callable[[torch.nn.Parameter], None]]:
    """Return an optimizer for schedulers to see, and the step that another makes with its rate."""
    x = torch.nn.Parameter(torch.zeros(()))
    outer = torch.optim.SGD([x], lr=lr)
    copied = float(outer.param_groups[0]["lr"])

    def step(parameter: torch.nn.Parameter) -> None:
        with torch.no_grad():
            parameter -= copied

    return outer, step


# --- matrices ------------------------------------------------------------------------------------


def householder(size: int, generator: torch.Generator) -> torch.Tensor:
    """Return I - 2 u u^T / |u|^2."""
    u = torch.randn(size, generator=generator, dtype=torch.float64)
    return torch.eye(size, dtype=torch.float64) - 2 * torch.outer(u, u) / u.square().sum()


def givens_diagonal(size: int, generator: torch.Generator) -> torch.Tensor:
    """Return the diagonal of a product of as many plane rotations as there are dimensions."""
    product = torch.eye(size, dtype=torch.float64)
    for _ in range(size):
        i, j = torch.randperm(size, generator=generator)[:2].tolist()
        angle = 2 * math.pi * float(torch.rand((), generator=generator))
        turn = torch.eye(size, dtype=torch.float64)
        turn[i, i] = turn[j, j] = math.cos(angle)
        turn[j, i], turn[i, j] = math.sin(angle), -math.sin(angle)
        product = product @ turn
    return product.diagonal()


def sampled(rows: int, cols: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what a matrix is perturbed along, U S V^T, and what it is stepped along, U V^T."""
    generator = torch.Generator().manual_seed(seed)
    least = min(rows, cols)
    s = givens_diagonal(least, generator)
    u, v = householder(rows, generator)[:, :least], householder(cols, generator)[:, :least]
    return u * s @ v.T, u @ v.T


def vector_redrawn(x: torch.Tensor, seed: int, tau: float) -> torch.Tensor:
    """Return where a vector is after it was perturbed and put back with other numbers each time."""
    generator = torch.Generator().manual_seed(seed)
    for factor in (1, -2, 1):
        x = x + tau * factor * torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return x


def sparse_mask(count: int, share: float, seed: int) -> torch.Tensor:
    """Return which entries are set to zero for a share of them: normal numbers below it."""
    return torch.randn(count, generator=torch.Generator().manual_seed(seed)) < share


# --- JAGUAR --------------------------------------------------------------------------------------


def block_sizes(shape: tuple[int, int]) -> tuple[int, int]:
    """Return how many rows and columns of a matrix are perturbed."""
    rows, cols = shape
    return max(1, rows // 10), max(1, cols // 10)


def jaguar_step(
    theta: list[torch.Tensor],
    loss: Callable[[list[torch.Tensor]], torch.Tensor],
    entries: Sequence[tuple[int, int, float]],
    *,
    lr: float,
    tau: float,
    beta: float = 0.01,
) -> list[torch.Tensor]:
    """Return the tensors after a step that begins with a momentum of zero, as each one does."""

    def moved(by: float) -> list[torch.Tensor]:
        found = [tensor.clone() for tensor in theta]
        for tensor, place, _ in entries:
            found[tensor].view(-1)[place] += by
        return found

    rho = float(loss(moved(tau)) - loss(moved(-tau))) / (2 * tau)
    found = [tensor.clone() for tensor in theta]
    for tensor, place, _ in entries:
        momentum = beta * 0.0 + (1 - beta) * rho
        found[tensor].view(-1)[place] -= lr * math.copysign(1.0, momentum) if momentum else 0.0
    return found
