"""The backend for torch.compile: exact, with each graph of a model within the budget."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from shoestring.activations.remat.backends import backend
from shoestring.core.errors import InputError
from shoestring.measure.tracing.allocator import measure_step
from tests.activations.remat.nets import WithLoss, sequence, transformer


@pytest.fixture(autouse=True)
def _fresh() -> None:
    torch._dynamo.reset()


class Broken(nn.Module):
    """Two Transformers between which the compiler loses its way."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = transformer(0.1, depth=1), transformer(0.1, depth=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        torch._dynamo.graph_break()
        out: torch.Tensor = self.second(x).square().mean()
        return out


def step(network: nn.Module, run: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """Run a step; return the loss and the gradients."""
    network.zero_grad()
    torch.manual_seed(0)
    loss = run(x)
    loss.backward()
    return [loss.detach(), *(p.grad for p in network.parameters() if p.grad is not None)]


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # of torch itself
def test_each_graph_of_a_broken_model_has_the_budget() -> None:
    plain = Broken()
    model = copy.deepcopy(plain)
    within = backend(activations="85%", cost="flops")
    run = torch.compile(model, backend=within)
    for mine, theirs in zip(
        step(model, run, sequence()), step(plain, plain, sequence()), strict=True
    ):
        assert torch.equal(mine, theirs)
    first, second = within.schedules
    for each in (first, second):
        assert each.peak <= each.budget == int(0.85 * each.plain.peak)
        assert each.overhead > 0


def test_evaluation_just_runs() -> None:
    plain = Broken()
    model = copy.deepcopy(plain)
    within = backend(activations="85%", cost="flops")
    run = torch.compile(model, backend=within)
    with torch.no_grad():
        torch.manual_seed(0)
        trained = run(sequence())
        torch.manual_seed(0)
        assert torch.equal(trained, plain(sequence()))
        model.eval()
        assert torch.equal(run(sequence()), plain.eval()(sequence()))
    assert not within.schedules


def test_a_larger_batch_is_scheduled_for_itself() -> None:
    model = WithLoss(transformer(0.1, depth=1))
    within = backend(activations=650_000, cost="flops")
    run = torch.compile(model, backend=within, fullgraph=True)
    for rows in (6, 7, 8):  # the second opens the size
        x = sequence()[:rows]

        def once(x: torch.Tensor = x) -> None:
            run(x).backward()
            model.zero_grad()

        once()
        measured = measure_step(once, roots=lambda x=x: [*model.parameters(), x])
        assert measured.peak - measured.static <= 650_000 + 8
    assert [each.plain.peak > 650_000 for each in within.schedules][-1]
    assert len(within.schedules) == 3


def test_a_budget_that_is_not_understood_is_refused_at_once() -> None:
    with pytest.raises(InputError):
        backend(activations="a lot")
    with pytest.raises(ValueError, match="fastest"):
        backend(activations="50%", solver="fastest")
