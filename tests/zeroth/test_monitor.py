"""A run whose slopes are below their noise is told so, once; another is not."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn

from shoestring.zeroth import ZOSGD
from shoestring.zeroth.monitor import WINDOW, NoiseWarning


def told(closure: Callable[[nn.Parameter], torch.Tensor], steps: int = 4 * WINDOW) -> list[str]:
    """Return the warnings of a run on a place in 50 dimensions."""
    x = nn.Parameter(torch.ones(50))
    opt = ZOSGD([x], lr=0.0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(steps):
            opt.step(lambda: closure(x))
    assert all(issubclass(entry.category, NoiseWarning) for entry in caught)
    return [str(entry.message) for entry in caught]


def samples(x: nn.Parameter, noise: float, count: int = 16) -> torch.Tensor:
    """Return losses of samples: a slope of 1 along each axis, and noise."""
    generator = torch.Generator().manual_seed(int(torch.randint(2**31, ())))
    return x.sum() + noise * torch.randn(count, 50, generator=generator) @ x


def test_noise_above_the_slope_is_told_once_with_what_would_lift_it() -> None:
    torch.manual_seed(0)
    (words,) = told(lambda x: samples(x, 8.0))  # signal to noise 1 / (64 / 16)
    found = re.search(r"noise ([\d.]+)\): batches (\d+) times", words)
    assert found is not None
    assert float(found[1]) == pytest.approx(0.25, abs=0.25)
    assert 2 <= int(found[2]) <= 50


def test_mere_noise_says_at_least() -> None:
    torch.manual_seed(1)
    (words,) = told(lambda x: samples(x - x.mean().detach(), 4.0) - (x - x.mean().detach()).sum())
    assert "signal to noise" in words


def test_a_slope_above_the_noise_is_fine() -> None:
    torch.manual_seed(0)
    assert told(lambda x: samples(x, 1.0)) == []
    assert told(lambda x: x.sum()) == []


def test_differences_that_rounding_swallows_are_told() -> None:
    (words,) = told(lambda x: x.sum() + 1e5)
    assert "raise eps" in words


def test_a_metric_without_slopes_is_not_taken_for_rounding() -> None:
    assert told(lambda x: (x > 0).float().mean()) == []
