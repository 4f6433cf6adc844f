"""A worker that was away makes the steps that it missed, and ends at the same bits."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from shoestring.core.errors import InputError
from shoestring.zeroth import ZOSGD, Log, SamplingMuon, ZOAdam
from shoestring.zeroth.catch_up import catch_up
from shoestring.zeroth.engine import ZerothOrder
from shoestring.zeroth.workers import digest
from tests.zeroth import processes, story_program
from tests.zeroth.workers_program import batch, losses, net

Found = list[dict[str, dict[str, object]]]

OPTIMIZERS: dict[str, Callable[[nn.Module], ZerothOrder]] = {
    "plain": lambda m: ZOSGD(m.parameters(), lr=0.01, weight_decay=0.1),
    "three": lambda m: ZOSGD(m.parameters(), lr=0.01, q=3),
    "momentum": lambda m: ZOSGD(m.parameters(), lr=0.01, momentum=0.9),
    "pending": lambda m: ZOSGD(m.parameters(), lr=0.01, pending=True),
    "adam": lambda m: ZOAdam(m.parameters(), lr=0.01, betas=(0.5, 0.9)),
    "muon": lambda m: SamplingMuon(m.parameters(), lr=0.01),
    "groups": lambda m: ZOSGD(
        [{"params": m[0].parameters(), "lr": 0.02}, {"params": m[2].parameters(), "eps": 0.01}]
    ),
}


def train(model: nn.Module, optimizer: ZerothOrder, first: int, last: int) -> None:
    for step in range(first, last):
        optimizer.step(losses(model, batch(step)))


def bits(model: nn.Module, optimizer: ZerothOrder) -> str:
    with optimizer.unperturbed():
        return digest(model.parameters())


@pytest.mark.parametrize("checkpoint", [0, 3, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_from_a_checkpoint_to_the_bits_of_the_others(
    name: str, dtype: torch.dtype, checkpoint: int, tmp_path: Path
) -> None:
    if name == "pending" and dtype is torch.bfloat16:
        pytest.skip("bfloat16 does not stay perturbed")
    make = OPTIMIZERS[name]
    model = net(dtype)
    optimizer = make(model)
    train(model, optimizer, 0, checkpoint)
    again = copy.deepcopy(model)
    state = copy.deepcopy(optimizer.state_dict())
    train(model, optimizer, checkpoint, 7)
    optimizer.log.save(tmp_path / "run.zolog")
    returned = make(again)
    if checkpoint:
        returned.load_state_dict(state)
    assert catch_up(returned, Log.load(tmp_path / "run.zolog")) == 7 - checkpoint
    assert bits(again, returned) == bits(model, optimizer)
    train(model, optimizer, 7, 9)
    train(again, returned, 7, 9)
    assert bits(again, returned) == bits(model, optimizer)
    assert bits(again, returned) != digest(net(dtype).parameters())


def test_a_scheduler_is_stepped_as_often_as_steps_were_made() -> None:
    models = [net(), net()]
    there, back = (ZOSGD(model.parameters(), lr=0.05) for model in models)
    rates = [torch.optim.lr_scheduler.ExponentialLR(opt, 0.8) for opt in (there, back)]
    for step in range(5):
        train(models[0], there, step, step + 1)
        rates[0].step()
    made = catch_up(back, there.log)
    assert back.param_groups[0]["lr"] == 0.05
    with pytest.warns(UserWarning, match="lr_scheduler.step"):  # torch counts calls of step
        rates[1].step()
    for _ in range(made - 1):
        rates[1].step()
    assert back.param_groups[0]["lr"] == there.param_groups[0]["lr"] == pytest.approx(0.05 * 0.8**5)
    for model, opt in zip(models, (there, back), strict=True):
        train(model, opt, 5, 6)
    assert bits(models[0], there) == bits(models[1], back)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: ZOAdam(m.parameters()), "in its optimizer"),
        (lambda m: ZOSGD(m.parameters(), seed=1), "in its options"),
        (lambda m: ZOSGD(list(m.parameters())[:3]), "in its shapes"),
        (
            lambda m: ZOSGD([{"params": m[0].parameters()}, {"params": m[2].parameters()}]),
            "in its sizes",
        ),
    ],
)
def test_a_log_of_another_run_is_refused(
    make: Callable[[nn.Module], ZerothOrder], message: str
) -> None:
    model, other = net(), net()
    optimizer = ZOSGD(model.parameters(), lr=0.01)
    train(model, optimizer, 0, 2)
    before = digest(other.parameters())
    with pytest.raises(InputError, match=message):
        catch_up(make(other), optimizer.log)
    assert digest(other.parameters()) == before


def test_a_log_that_begins_later_or_ends_before_is_refused() -> None:
    model, other = net(), net()
    optimizer, behind = (ZOSGD(m.parameters(), lr=0.01) for m in (model, other))
    train(model, optimizer, 0, 2)
    early = copy.deepcopy(optimizer.log)
    optimizer.load_state_dict(optimizer.state_dict())
    train(model, optimizer, 2, 4)
    with pytest.raises(InputError, match="steps 2 to 4, and this optimizer is at 0"):
        catch_up(behind, optimizer.log)
    with pytest.raises(InputError, match="steps 0 to 2, and this optimizer is at 4"):
        catch_up(optimizer, early)
    assert catch_up(behind, early) == 2
    assert catch_up(behind, optimizer.log) == 2
    assert catch_up(behind, optimizer.log) == 0
    assert bits(other, behind) == bits(model, optimizer)


@pytest.mark.timeout(200)
def test_all_come_to_the_step_of_the_furthest(found: Found) -> None:
    if len(found) < 4:
        pytest.skip("there are too few")
    assert [worker["behind"]["made"] for worker in found] == [0, 3, 1, 0]
    model = net()
    optimizer = ZOSGD(model.parameters(), lr=0.01, momentum=0.9)
    train(model, optimizer, 0, 4)
    assert {digest(worker["behind"]["weights"]) for worker in found} == {bits(model, optimizer)}


@pytest.mark.timeout(200)
def test_who_cannot_catch_up_is_an_error_on_all(found: Found) -> None:
    if len(found) < 4:
        pytest.skip("there are too few")
    said = {worker["too far"] for worker in found}
    assert said == {"worker 1 is at step 1, and the others' logs begin at 2."}
    said = [worker["another"] for worker in found]
    assert said[1] == "the log differs from this optimizer in its options."
    assert {said[0], said[2], said[3]} == {"worker 1 cannot catch up."}


@pytest.mark.skipif(not processes.HERE, reason="there are no workers on this machine")
@pytest.mark.timeout(200)
def test_one_of_four_is_killed_and_comes_back(tmp_path: Path) -> None:
    processes.run("tests.zeroth.story_program", tmp_path)
    expected = story_program.reference()
    found = [torch.load(tmp_path / f"{k}.pt", weights_only=True) for k in range(4)]
    assert [worker["made"] for worker in found] == [0, 0, story_program.BACK, 0]
    assert {digest(worker["weights"]) for worker in found} == {digest(expected["weights"])}
    assert all(worker["deltas"] == expected["deltas"] for worker in found)
