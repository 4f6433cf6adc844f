"""The networks that are attacked. Plain torch: the peers' environment imports this file too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import nn
from torch.nn import functional as F


class Residual(nn.Module):
    """Two convolutions, and a way around them.

    Args:
        width: channels in.
        out: channels out, at half the resolution.
    """

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(width, out, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(out)
        self.two = nn.Conv2d(out, out, 3, padding=1)
        self.around = nn.Conv2d(width, out, 1, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output."""
        inner = self.two(F.silu(self.norm(self.one(x))))
        return F.silu(inner + self.around(x))


def strided() -> nn.Module:
    """Return two strided convolutions and a linear layer."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, stride=2, padding=2), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(32 * 49, 10),
    )  # fmt: skip


def pooled() -> nn.Module:
    """Return three convolutions with batch norms and max pooling, and two linear layers."""
    layers: list[nn.Module] = [nn.Conv2d(1, 12, 5, stride=2, padding=2), nn.BatchNorm2d(12)]
    for width, out in ((12, 24), (24, 32)):
        layers += [nn.ReLU(), nn.Conv2d(width, out, 3, padding=1), nn.MaxPool2d(2)]
        layers += [nn.BatchNorm2d(out)]
    return nn.Sequential(
        *layers, nn.ReLU(), nn.Flatten(), nn.Linear(32 * 9, 64), nn.ReLU(), nn.Linear(64, 10)
    )


def residual() -> nn.Module:
    """Return two residual blocks with SiLU, averaged over quarters of the image."""
    return nn.Sequential(
        Residual(1, 8), Residual(8, 24), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(96, 10)
    )


NETWORKS: Final[dict[str, Callable[[], nn.Module]]] = {
    "strided": strided,
    "pooled": pooled,
    "residual": residual,
}
"""The networks by name."""
