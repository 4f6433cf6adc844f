"""MeZO's step as its paper and its published program have it: four passes over the parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

Params = Sequence[torch.nn.Parameter]


def perturb(params: Params, seed: int, eps: float, factor: float) -> None:
    """Move the parameters by a multiple of normal numbers that a seed tells."""
    torch.manual_seed(seed)
    for parameter in params:
        z = torch.normal(0.0, 1.0, parameter.shape, dtype=parameter.dtype, device=parameter.device)
        parameter.data = parameter.data + factor * z * eps


def run(
    params: Params,
    closure: Callable[[], torch.Tensor],
    *,
    steps: int,
    lr: float,
    eps: float,
    weight_decay: float = 0.0,
    seed: int = 0,
) -> list[float]:
    """Make steps, and return the slopes; torch's global generator is seeded as a side effect."""
    seeds, slopes = np.random.RandomState(seed), []
    for _ in range(steps):
        drawn = int(seeds.randint(1000000000))
        perturb(params, drawn, eps, 1)
        ahead = closure().item()
        perturb(params, drawn, eps, -2)
        behind = closure().item()
        perturb(params, drawn, eps, 1)
        slopes.append((ahead - behind) / (2 * eps))
        torch.manual_seed(drawn)
        for parameter in params:
            z = torch.normal(0.0, 1.0, parameter.shape, dtype=parameter.dtype)
            parameter.data = parameter.data - lr * (slopes[-1] * z + weight_decay * parameter.data)
    return slopes
