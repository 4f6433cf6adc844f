"""Batches of other sizes than the fitted one: few captures, the same bytes, the same bits."""

from __future__ import annotations

import copy
import random

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from shoestring.activations.remat.fitting import fit, schedules
from shoestring.core.errors import AssumptionWarning, InfeasibleError, RefusedError
from shoestring.measure.tracing.allocator import measure_step
from tests.activations.remat.nets import WithLoss, sequence, transformer


@pytest.fixture(autouse=True)
def _fresh() -> None:
    torch._dynamo.reset()


def batch(rows: int, length: int) -> torch.Tensor:
    """Return a batch for `transformer`."""
    return torch.randn(rows, length, 8, generator=torch.Generator().manual_seed(rows + length))


def same_bits(model: nn.Module, plain: nn.Module, *inputs: object) -> bool:
    """Run a step of both; return whether losses and gradients are equal."""
    losses = []
    for each in (model, plain):
        each.zero_grad()
        torch.manual_seed(0)
        losses.append(each(*inputs))
        losses[-1].backward()
    pairs = zip(model.parameters(), plain.parameters(), strict=True)
    return torch.equal(*losses) and all(torch.equal(a.grad, b.grad) for a, b in pairs)


def peak(model: nn.Module, x: torch.Tensor) -> int:
    """Return the peak of a step above parameters and batch, by the allocator."""

    def step() -> None:
        model(x).backward()
        model.zero_grad()

    step()
    measured = measure_step(step, roots=lambda: [*model.parameters(), x])
    return measured.peak - measured.static


def test_batches_of_other_sizes_take_three_captures() -> None:
    plain = WithLoss(transformer(0.1, depth=1))
    model = copy.deepcopy(plain)
    schedule = fit(model, sequence(), activations="85%", cost="flops", check=False)
    draw = random.Random(0)
    for rows, length in ((8, 8), (4, 16)):  # sizes that are equal, and then are not
        assert same_bits(model, plain, batch(rows, length))
    assert len(schedules(model)) == 2
    sizes = [(8, 32), (1, 32), (8, 31), (7, 32)]
    sizes += [(draw.randint(2, 8), draw.randint(2, 32)) for _ in range(44)]
    for rows, length in sizes:
        assert same_bits(model, plain, batch(rows, length)), (rows, length)
    made = schedules(model)
    assert len(made) <= 3
    # All for the largest sizes: the second graph is that of the fitted batch, with sizes open.
    assert made[1].plain.peak == schedule.plain.peak > schedule.budget
    assert all(each.peak <= each.budget == schedule.budget for each in made)
    for rows, length in [(8, 32), (8, 31), (7, 32), (8, 8)]:
        assert peak(model, batch(rows, length)) <= schedule.budget + 8
    assert len(schedules(model)) == len(made)


def waves(width: int, depth: int) -> nn.Module:
    """Return a network with much to keep for each number that it takes."""
    return nn.Sequential(
        *(nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Tanh()) for _ in range(depth))
    )


class Words(nn.Module):
    """Its loss lies outside of it, and takes more than the model."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(96, 16)
        self.mix = waves(16, 8)
        self.head = nn.Linear(16, 96)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(self.mix(self.words(ids)))
        return scores


def likelihood(scores: object, ids: object) -> torch.Tensor:
    """Return the loss of `Words`."""
    assert isinstance(scores, torch.Tensor)
    assert isinstance(ids, torch.Tensor)
    return F.cross_entropy(scores.flatten(0, 1), ids.flatten())


def test_a_larger_batch_is_scheduled_anew_within_the_same_bytes_or_refused() -> None:
    plain = Words()
    model = copy.deepcopy(plain)

    def ids(rows: int) -> torch.Tensor:
        return torch.arange(rows * 16).view(rows, 16) % 96

    schedule = fit(model, ids(16), activations="75%", cost="flops", loss=likelihood)

    def step(rows: int) -> None:
        likelihood(model(ids(rows)), ids(rows)).backward()

    with pytest.warns(AssumptionWarning, match="larger than the one"):
        step(18)
    model.zero_grad()
    newest = schedules(model)[-1]
    assert newest.budget == schedule.budget < newest.plain.peak
    assert newest.plain.peak > schedule.plain.peak
    likelihood(plain(ids(18)), ids(18)).backward()
    step(18)  # no second warning
    for mine, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(mine.grad, theirs.grad)
    model.zero_grad()
    x = ids(18)

    def again() -> None:
        likelihood(model(x), x).backward()
        model.zero_grad()

    again()
    measured = measure_step(again, roots=lambda: [*model.parameters(), x])
    assert measured.peak - measured.static <= schedule.budget + 8
    with pytest.raises(InfeasibleError, match="bound by"):
        step(160)
    step(16)  # what fits goes on


def test_when_torch_captures_no_more_the_step_is_refused() -> None:
    model = WithLoss(waves(8, 4))
    fit(model, sequence(), activations="90%", cost="flops")
    model(sequence()).backward()
    with (
        torch._dynamo.config.patch(recompile_limit=1),
        pytest.raises(RefusedError, match="as often as torch allows") as caught,
    ):
        model(batch(4, 16))
    assert "largest batch" in caught.value.hint


class Window(nn.Module):
    """A size of its step is a number that it is called with."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = waves(8, 4)

    def forward(self, x: torch.Tensor, repeats: int) -> torch.Tensor:
        seen: torch.Tensor = self.mix(x.repeat(repeats, 1, 1)).square().mean()
        return seen


def test_a_size_that_is_no_input_s_is_captured_for_each_value() -> None:
    plain = Window()
    model = copy.deepcopy(plain)
    x = batch(4, 16)
    schedule = fit(model, (x, 1), activations="90%", cost="flops")
    assert same_bits(model, plain, batch(3, 15), 1)
    with pytest.raises(InfeasibleError):
        model(batch(3, 15), 16)
    assert all(made.peak <= schedule.budget for made in schedules(model))
