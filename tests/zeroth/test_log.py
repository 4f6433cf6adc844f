"""The log of a run makes its steps again, to the last bit, and nothing else."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from shoestring.core.errors import InputError
from shoestring.zeroth import (
    ZOSGD,
    JaguarMuon,
    JaguarSign,
    Log,
    SamplingMuon,
    ZOAdam,
    ZOMuon,
    ZOSign,
    replay,
)
from shoestring.zeroth.engine import ZerothOrder


def net(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """Return a small network, always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)


def trained(
    make: Callable[[nn.Module], ZerothOrder], model: nn.Sequential, steps: int = 6
) -> ZerothOrder:
    """Train with a scheduler, and a step whose loss is not finite."""
    opt = make(model)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(opt, 0.9)
    x = torch.randn(16, 6, generator=torch.Generator().manual_seed(1)).to(model[0].weight.dtype)
    for step in range(steps):
        bad = float("nan") if step == 3 else 1.0
        with pytest.warns(RuntimeWarning) if step == 3 else contextlib.nullcontext():
            opt.step(lambda bad=bad: bad * model(x).float().square().mean())
        scheduler.step()
    return opt


OPTIMIZERS: dict[str, Callable[[nn.Module], ZerothOrder]] = {
    "sgd": lambda m: ZOSGD(m.parameters(), lr=0.01, weight_decay=0.1),
    "two": lambda m: ZOSGD(m.parameters(), lr=0.01, q=2, seed=7),
    "one-sided": lambda m: ZOSGD(m.parameters(), lr=0.01, q=2, two_sided=False),
    "pending": lambda m: ZOSGD(m.parameters(), lr=0.01, pending=True),
    "momentum": lambda m: ZOSGD(m.parameters(), lr=0.01, momentum=0.9),
    "gaussian": lambda m: ZOSGD(m.parameters(), lr=0.01, directions="gaussian"),
    "coordinates": lambda m: ZOSGD(m.parameters(), lr=0.01, directions="coord:9"),
    "sign": lambda m: ZOSign(m.parameters(), lr=0.01),
    "adam": lambda m: ZOAdam(m.parameters(), lr=0.01, betas=(0.5, 0.9)),
    "muon": lambda m: ZOMuon(m.parameters(), lr=0.01, method="polar-express"),
    "jaguar": lambda m: JaguarSign(m.parameters(), lr=0.01, beta=0.3, coords=5, q=2),
    "jaguar-muon": lambda m: JaguarMuon(m.parameters(), lr=0.01, eps=0.05, block="reference"),
    "sampling": lambda m: SamplingMuon(m.parameters(), lr=0.01),
    "groups": lambda m: ZOSGD(
        [{"params": m[0].parameters(), "lr": 0.1}, {"params": m[2].parameters(), "eps": 0.01}]
    ),
}


def test_a_momentum_that_is_scheduled_is_in_the_log() -> None:
    model, first = net(), net()
    x = torch.randn(16, 6, generator=torch.Generator().manual_seed(1))
    opt = ZOAdam(model.parameters(), lr=0.01)
    cycle = torch.optim.lr_scheduler.OneCycleLR(opt, 0.02, total_steps=10)
    for _ in range(8):
        opt.step(lambda: model(x).square().mean())
        cycle.step()
    assert opt.param_groups[0]["betas"] != (0.9, 0.999)
    replay(first, opt.log)
    assert all(map(torch.equal, model.parameters(), first.parameters()))


def test_a_log_that_begins_in_a_run_with_a_state_is_refused() -> None:
    model = net()
    opt = trained(lambda m: ZOSGD(m.parameters(), lr=0.01, momentum=0.9), model, steps=3)
    again = ZOSGD(model.parameters(), lr=0.01, momentum=0.9)
    again.load_state_dict(opt.state_dict())
    again.step(lambda: model(torch.ones(2, 6)).square().mean())
    with pytest.raises(InputError, match="begins at step 3 of a run"):
        replay(net(), again.log)


def test_options_that_differ_between_groups_are_refused() -> None:
    model = net()
    groups = [{"params": model[0].parameters(), "eps_root": 0.1}, {"params": model[2].parameters()}]
    with pytest.raises(InputError, match="eps_root differs between groups"):
        ZOAdam(groups)


@pytest.mark.parametrize("directions", ["rademacher", "rank1", "gaussian"])
def test_weights_that_grow_are_made_again_too(directions: str) -> None:
    model, first = net(), net()
    x = torch.randn(16, 6, generator=torch.Generator().manual_seed(1))
    opt = ZOSGD(model.parameters(), lr=0.01, directions=directions)
    for _ in range(60):
        opt.step(lambda: (model(x) - 30).square().mean())
    assert model[2].bias.detach().abs().max() > 3
    replay(first, opt.log)
    assert all(map(torch.equal, model.parameters(), first.parameters()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_replay_has_the_bits_of_the_run(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    if name == "pending" and dtype is torch.bfloat16:
        pytest.skip("bfloat16 does not stay perturbed")
    model, again = net(dtype), net(dtype)
    opt = trained(OPTIMIZERS[name], model)
    opt.log.save(tmp_path / "run.zolog")
    log = Log.load(tmp_path / "run.zolog")
    made = replay(again, log)
    with opt.unperturbed():
        for mine, theirs in zip(again.parameters(), model.parameters(), strict=True):
            assert torch.equal(mine, theirs)
    x = torch.ones(2, 6, dtype=dtype)
    for optimizer, network in ((opt, model), (made, again)):  # and it goes on as the run would
        for group in optimizer.param_groups:
            group["lr"] = 1e-3
        optimizer.step(lambda network=network: network(x).float().sum())
    with opt.unperturbed():
        for mine, theirs in zip(again.parameters(), model.parameters(), strict=True):
            assert torch.equal(mine, theirs)


def test_a_run_of_a_thousand_steps_is_a_few_kilobytes(tmp_path: Path) -> None:
    x = nn.Parameter(torch.ones(3))
    opt = ZOSGD([x], lr=0.01)
    for _ in range(1000):
        opt.step(lambda: x.square().sum())
    opt.log.save(tmp_path / "run.zolog")
    assert (tmp_path / "run.zolog").stat().st_size < 6000
    assert len(Log.load(tmp_path / "run.zolog")) == 1000


def test_a_log_of_other_parameters_or_of_no_optimizer_is_refused(tmp_path: Path) -> None:
    opt = trained(OPTIMIZERS["sgd"], net())
    with pytest.raises(InputError, match="other shapes"):
        replay(nn.Linear(3, 3), opt.log)
    opt.log.optimizer = "SGD"
    with pytest.raises(InputError, match="no optimizer here"):
        replay(net(), opt.log)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 7}, "is no log"),
        ({"deltas": "AAAA"}, "is no log"),
        ({"deltas": "!"}, "is no log"),
        ({"settings": []}, "is no log"),
        ({"shapes": 3}, "is no log"),
        ({"schema": "other"}, "schema"),
    ],
)
def test_a_damaged_file_is_refused(change: dict[str, object], message: str, tmp_path: Path) -> None:
    opt = trained(OPTIMIZERS["sgd"], net())
    path = tmp_path / "run.zolog"
    opt.log.save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=message):
        Log.load(path)


def test_a_damaged_option_is_refused() -> None:
    opt = trained(OPTIMIZERS["sgd"], net())
    opt.log.options["nonsense"] = 1
    with pytest.raises(InputError, match="options are not those"):
        replay(net(), opt.log)
