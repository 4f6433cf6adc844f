"""`noise="torch"` follows MeZO's published program, number by number."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from shoestring.core.errors import InputError
from shoestring.zeroth import ZOSGD, ZOSign, replay
from tests.oracles import mezo


def net(dtype: torch.dtype) -> nn.Sequential:
    """Return a network with tensors below and above 16 elements, which torch draws differently."""
    generator = torch.Generator().manual_seed(0)
    made = nn.Sequential(nn.Linear(7, 9), nn.Tanh(), nn.Linear(9, 3))
    for parameter in made.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return made.to(dtype)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_its_steps_are_those_of_the_published_program(momentum: float) -> None:
    theirs, ours = net(torch.float64), net(torch.float64)
    x = torch.randn(16, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    options = {"lr": 1e-3, "eps": 1e-3, "weight_decay": 0.1, "seed": 5}
    slopes = mezo.run(
        list(theirs.parameters()), lambda: theirs(x).square().mean(), steps=20, **options
    )
    state = torch.get_rng_state()
    opt = ZOSGD(
        ours.parameters(), directions="gaussian", noise="torch", momentum=momentum, **options
    )
    for _ in range(20):
        opt.step(lambda: ours(x).square().mean())
    assert torch.equal(torch.get_rng_state(), state)
    first = opt.log.deltas[0][0] / 1e-3
    assert first == pytest.approx(slopes[0], rel=1e-6)
    if momentum:
        return
    assert [delta / 1e-3 for (delta,) in opt.log.deltas] == pytest.approx(slopes, rel=1e-5)
    for left, right in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(left, right, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_log_makes_it_again(dtype: torch.dtype) -> None:
    model = net(dtype)
    first = copy.deepcopy(model)
    x = torch.randn(16, 7, generator=torch.Generator().manual_seed(1)).to(dtype)
    opt = ZOSGD(model.parameters(), lr=1e-3, q=2, directions="gaussian", noise="torch")
    for _ in range(70):  # beyond the seeds that are drawn at first
        opt.step(lambda: model(x).float().square().mean())
    replay(first, opt.log)
    for left, right in zip(model.parameters(), first.parameters(), strict=True):
        assert torch.equal(left, right)


def test_without_a_learning_rate_the_weights_come_back() -> None:
    model = net(torch.float32)
    opt = ZOSign(model.parameters(), lr=0.0, directions="gaussian", noise="torch")
    opt.step(lambda: 1.0)
    settled = copy.deepcopy(model.state_dict())
    for _ in range(50):
        opt.step(lambda: 1.0)
    assert all(torch.equal(value, settled[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("options", "words"),
    [({"noise": "numpy"}, "no noise called"), ({"noise": "torch"}, "normal numbers")],
)
def test_what_cannot_be(options: dict[str, str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        ZOSGD([nn.Parameter(torch.ones(3))], **options)
