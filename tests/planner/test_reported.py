"""What is only reported is held to a measurement too, where it can be run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

import shoestring
from shoestring.measure.allocator import measure_step, standing
from shoestring.measure.step import StepOptions, plain_step
from shoestring.planner.reported import Bfloat16Autocast


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def mean_square(output: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
    return (output - batch).square().mean()


def perceptron() -> nn.Module:
    torch.manual_seed(0)
    blocks = [
        nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64), nn.LayerNorm(64))
        for _ in range(6)
    ]
    return nn.Sequential(*blocks)


BATCH = torch.ones(1024, 64)


def test_the_predicted_peak_of_bf16_holds() -> None:
    model = perceptron()
    prof = shoestring.profile(model, BATCH, optimizer=torch.optim.AdamW, loss=mean_square)
    optimizer = torch.optim.AdamW(model.parameters())
    options = StepOptions(loss=mean_square, autocast=torch.bfloat16)
    for _ in range(2):
        plain_step(model, BATCH, optimizer, options)
    measured = measure_step(
        lambda: plain_step(model, BATCH, optimizer, options),
        roots=lambda: standing(model, BATCH, optimizer),
    )
    assert Bfloat16Autocast().predict(prof).peak == pytest.approx(measured.peak, rel=0.05)
