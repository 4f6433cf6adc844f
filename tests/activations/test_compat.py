"""The reference's names do what they did there, and give what the model gives."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from shoestring.activations.compat import HiRemate, Rockmate
from shoestring.core.errors import InfeasibleError, InputError


class Two(nn.Module):
    """Takes an argument by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Sequential(nn.Linear(32, 32), nn.GELU(), nn.Dropout(0.2)) for _ in range(4))
        )

    def forward(self, x: torch.Tensor, scale: torch.Tensor | None = None) -> torch.Tensor:
        y: torch.Tensor = self.layers(x)
        return y if scale is None else y * scale


def batch() -> torch.Tensor:
    return torch.randn(256, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", [Rockmate, HiRemate])
def test_gives_what_the_model_gives_within_the_budget(kind: type[Rockmate]) -> None:
    torch.manual_seed(0)
    model = Two()
    plain = copy.deepcopy(model)
    smaller = kind(model, batch(), 320_000)
    assert smaller.op_sched is not None
    assert smaller.op_sched.peak <= 320_000
    assert smaller.op_sched.overhead > 0
    assert {id(p) for p in smaller.parameters()} == {id(p) for p in model.parameters()}
    assert "forward" not in vars(model)
    found = []
    for each in (plain, smaller):
        torch.manual_seed(1)
        each(batch()).square().sum().backward()
        found.append([*(p.grad for p in each.parameters()), torch.get_rng_state()])
    assert all(map(torch.equal, *found))


def test_a_budget_may_come_later_and_change() -> None:
    smaller = Rockmate(Two(), batch(), solve_sched=False)
    with pytest.raises(InputError, match="no budget"):
        smaller.solve_sched()
    for budget in (400_000, 320_000):
        smaller.solve_sched(budget)
        assert smaller.op_sched is not None
        assert smaller.op_sched.peak <= budget
    with pytest.raises(InfeasibleError):
        smaller.solve_sched(1000)


def test_arguments_by_keyword() -> None:
    smaller = HiRemate(
        Two(), batch(), 400_000, ["rotor"], model_kwargs={"scale": torch.full((32,), 2.0)}
    )
    assert smaller.op_sched is not None
    assert smaller.op_sched.peak <= 400_000
    smaller(batch(), scale=torch.ones(32)).sum().backward()


def test_an_unknown_algorithm_is_refused() -> None:
    with pytest.raises(InputError, match="twremat"):
        HiRemate(Two(), batch(), 400_000, ["twremat"])
