"""An optimizer that asks beside its parameters steps as one that moves them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from shoestring.core.errors import InputError
from shoestring.measure.tracing.allocator import measure_step
from shoestring.zeroth import ZOSGD, ZOSign, replay


def net(dtype: torch.dtype) -> nn.Sequential:
    """Return a small network, always the same."""
    generator = torch.Generator().manual_seed(0)
    made = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 3))
    for parameter in made.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return made.to(dtype)


def run(model: nn.Sequential, opt: ZOSGD, steps: int = 5) -> list[float]:
    """Train, and return the losses."""
    x = torch.randn(16, 6, generator=torch.Generator().manual_seed(1)).to(model[0].weight.dtype)
    return [opt.step(lambda: model(x).float().square().mean()) for _ in range(steps)]


@pytest.mark.parametrize("directions", ["rank1", "lowrank:2"])
@pytest.mark.parametrize("q", [1, 3])
def test_a_twin_forward_takes_the_same_course(q: int, directions: str) -> None:
    models = [net(torch.float64), net(torch.float64)]
    first = copy.deepcopy(models[0])
    options = {"lr": 1e-3, "q": q, "directions": directions}
    plain = ZOSGD(models[0].parameters(), **options)
    twin = ZOSGD(models[1].parameters(), model=models[1], forward="twin", **options)
    assert run(models[1], twin) == pytest.approx(run(models[0], plain), rel=1e-9)
    for left, right in zip(*(model.parameters() for model in models), strict=True):
        assert torch.allclose(left, right, rtol=1e-6)
    replay(first, twin.log)
    assert all(map(torch.equal, first.parameters(), models[1].parameters()))


def test_only_the_update_writes() -> None:
    model = net(torch.float32)
    opt = ZOSGD(model.parameters(), lr=1e-3, directions="rank1", model=model, forward="twin")
    run(model, opt, 1)
    before = [parameter._version for parameter in model.parameters()]
    opt.estimate(lambda: model(torch.ones(2, 6)).square().mean())
    assert [parameter._version for parameter in model.parameters()] == before


@pytest.mark.parametrize("kind", [ZOSGD, ZOSign])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_copies_for_one_function_give_the_bits_of_copies_of_all(
    kind: type[ZOSGD], dtype: torch.dtype
) -> None:
    models = [net(dtype), net(dtype)]
    plain = kind(models[0].parameters(), lr=1e-2)
    other = kind(models[1].parameters(), lr=1e-2, model=models[1])
    assert run(models[0], plain) == run(models[1], other)
    assert all(map(torch.equal, models[0].parameters(), models[1].parameters()))


def test_copies_for_one_function_are_few() -> None:
    layers = [nn.Linear(256, 256, dtype=torch.bfloat16) for _ in range(8)]
    model = nn.Sequential(*layers)
    held = 2 * 256 * 256
    x = torch.ones(1, 256, dtype=torch.bfloat16)
    peaks = []
    for given in (None, model):
        opt = ZOSGD(model.parameters(), lr=0.0, model=given)

        def step(opt: ZOSGD = opt) -> None:
            opt.estimate(lambda: model(x).float().square().mean())
            opt.step()

        step()
        peaks.append(measure_step(step, roots=model.parameters).peak)
    assert peaks[0] > 16 * held
    assert peaks[1] < 12 * held


def test_what_is_frozen_later_is_left_out() -> None:
    model = net(torch.float32)
    opt = ZOSGD(model.parameters(), lr=1e-2, directions="rank1", model=model, forward="twin")
    run(model, opt, 1)
    model[0].weight.requires_grad_(False)
    before = model[0].weight.detach().clone()
    run(model, opt, 2)
    assert torch.equal(model[0].weight, before)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"forward": "twin"}, "must know the model"),
        ({"forward": "thrice"}, "no forward="),
        ({"forward": "twin", "pending": True}, "both sides at once"),
    ],
)
def test_options_that_cannot_be(options: dict[str, object], words: str) -> None:
    model = net(torch.float32)
    given = {"model": model} if "pending" in options else {}
    with pytest.raises(InputError, match=words):
        ZOSGD(model.parameters(), **options, **given)
