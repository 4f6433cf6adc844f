"""Obvious forms of the optimizers, in float64: one function a rule, the paper's letters."""

from __future__ import annotations

import torch


def sgd(
    theta: torch.Tensor,
    gradients: list[torch.Tensor],
    *,
    lr: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
) -> torch.Tensor:
    """b_t = mu b_{t-1} + g_t (b_1 = g_1); theta -= lr (g_t + mu b_t if nesterov else b_t)."""
    b = None
    for gradient in gradients:
        g = gradient + weight_decay * theta
        b = g if b is None else momentum * b + g
        theta = theta - lr * (g + momentum * b if nesterov else b)
    return theta


def adam(
    theta: torch.Tensor,
    gradients: list[torch.Tensor],
    *,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    amsgrad: bool = False,
    decoupled: bool = False,
) -> torch.Tensor:
    """theta -= lr m^ / (sqrt(v^) + eps), with m^ = m / (1 - b1^t) and v^ = v / (1 - b2^t)."""
    m = v = largest = torch.zeros_like(theta)
    for t, gradient in enumerate(gradients, start=1):
        g = gradient if decoupled else gradient + weight_decay * theta
        if decoupled:
            theta = theta - lr * weight_decay * theta
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        largest = torch.maximum(largest, v)
        v_hat = (largest if amsgrad else v) / (1 - betas[1] ** t)
        theta = theta - lr * (m / (1 - betas[0] ** t)) / (v_hat.sqrt() + eps)
    return theta
