"""On a small network that was trained, every method finds more than noise does."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from shoestring.zeroth.attacks import Attack, attack
from shoestring.zeroth.attacks.loop import METHODS

QUERIES = 200
BALLS = {"linf": 0.1, "l2": 1.0}


def stripes(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images of stripes under noise, and which of four directions these have."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 4
    angle = labels * torch.pi / 4 + 0.2 * torch.randn(count, generator=generator)
    phase = torch.rand(count, generator=generator) * 6
    i = torch.arange(16).view(1, 16, 1)
    j = torch.arange(16).view(1, 1, 16)
    wave = i * angle.cos().view(-1, 1, 1) + j * angle.sin().view(-1, 1, 1) + phase.view(-1, 1, 1)
    noise = torch.randn(count, 16, 16, generator=generator)
    return (0.5 + 0.15 * wave.sin() + 0.1 * noise).clamp(0, 1).unsqueeze(1), labels


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """Return a small convolutional network that tells the stripes apart."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(256, 4),
        )  # fmt: skip
    images, labels = stripes(1024, 1)
    opt = torch.optim.Adam(net.parameters(), lr=3e-3)
    for step in range(100):
        rows = torch.arange(128) + 128 * (step % 8)
        loss = F.cross_entropy(net(images[rows]), labels[rows])
        opt.zero_grad()
        loss.backward()
        opt.step()
    return net.eval()


def right(model: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images that the network knows, and their labels."""
    images, labels = stripes(60, 2)
    with torch.no_grad():
        known = model(images).argmax(1) == labels
    assert known.double().mean() > 0.9
    return images[known][:40], labels[known][:40]


def noise(model: nn.Module, norm: str, targeted: bool) -> float:
    """Return the share of images for which noise at the edge of the ball succeeds."""
    images, labels = right(model)
    wanted = (labels + 1) % 4
    generator = torch.Generator().manual_seed(0)
    found = torch.zeros(len(images), dtype=torch.bool)
    for _ in range(QUERIES - 1):
        step = torch.randn(images.shape, generator=generator)
        if norm == "linf":
            step = step.sign()
        else:
            step /= step.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        with torch.no_grad():
            answers = model((images + BALLS[norm] * step).clamp(0, 1)).argmax(1)
        found |= (answers == wanted) if targeted else (answers != labels)
    return float(found.double().mean())


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("norm", BALLS)
def test_every_method_finds_more_than_noise(model: nn.Module, norm: str, targeted: bool) -> None:
    images, labels = right(model)
    wanted = (labels + 1) % 4 if targeted else labels
    base = noise(model, norm, targeted)
    rates: dict[str, Attack] = {}
    for kind in METHODS:
        rates[kind.name] = attack(
            model, images, wanted, method=kind(), norm=norm, eps=BALLS[norm], queries=QUERIES,
            targeted=targeted,
        )  # fmt: skip
    worst = min(found.rate for found in rates.values())
    assert worst > base + 0.1, ({k: v.rate for k, v in rates.items()}, base)
