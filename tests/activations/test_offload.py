"""Offloading changes where activations wait and nothing else."""

from __future__ import annotations

import dataclasses
import weakref

import numpy as np
import pytest
import torch
from torch import nn

from shoestring.activations import offload
from shoestring.activations.offload import Offload, _Host, offloading
from shoestring.activations.rematerialisation import Rematerialisation
from shoestring.core.errors import InputError
from shoestring.core.fidelity import Fidelity
from shoestring.core.machine import Machine
from shoestring.core.profile import Profile
from shoestring.core.technique import Slot
from shoestring.core.trace import ALWAYS, Kind, Op, Phase, Storage, Trace
from shoestring.measure.tracing.allocator import measure_step, standing
from shoestring.measure.tracing.step import StepOptions, forward_loss, plain_step
from shoestring.planner.profiling import profile
from tests.zoo import ZOO, Case

CARD = Machine(
    name="card", title="a card", device="cuda", memory=None, flops={"float32": 1e12},
    bandwidth=1e12, op_seconds=1e-6, link=1e9,
)  # fmt: skip


def _gradients(model: nn.Module, case: Case, batch: object) -> list[torch.Tensor]:
    model.zero_grad()
    torch.manual_seed(0)
    loss, _ = forward_loss(model, batch, StepOptions(loss=case.loss))
    loss.backward()
    grads = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    return [loss.detach(), *grads, torch.get_rng_state()]


@pytest.mark.parametrize("case", ZOO[::3], ids=lambda case: case.name)
def test_exact_on_the_zoo(case: Case) -> None:
    batch = case.batch(case.rows[0])
    plain = _gradients(case.build(), case, batch)
    with offloading(min_bytes=0):
        changed = _gradients(case.build(), case, batch)
    assert len(plain) == len(changed)
    assert all(torch.equal(a, b) for a, b in zip(changed, plain, strict=True))


def test_exact_together_with_rematerialisation() -> None:
    case = next(case for case in ZOO if case.name == "resnet")
    batch = case.batch(case.rows[0])
    plain, model = _gradients(case.build(), case, batch), case.build()
    *_, most = Rematerialisation.propose(profile(model, batch, loss=case.loss))
    most.apply(model)
    with Offload(min_bytes=0).context():
        changed = _gradients(model, case, batch)
    assert all(torch.equal(a, b) for a, b in zip(changed, plain, strict=True))


def _kept(min_bytes: int) -> tuple[list[bool], nn.Linear]:
    """Return, for what a small chain saves, whether the very storage is given back."""
    linear = nn.Linear(64, 64)
    x = torch.randn(64, 64, requires_grad=True) * 1.0
    with offloading(min_bytes=min_bytes):
        y = linear(x)
        small = y[:1, :4].clone().exp()
    node = y.grad_fn
    ours = [node._saved_mat1, node._saved_mat2, small.grad_fn._saved_result]
    theirs = [x, linear.weight, small]
    pairs = zip(ours, theirs, strict=True)
    return [a.untyped_storage() is b.untyped_storage() for a, b in pairs], linear


def test_activations_move_and_parameters_and_small_tensors_stay() -> None:
    stays, _ = _kept(1024)
    assert stays == [False, True, True]
    stays, _ = _kept(0)
    assert stays == [False, True, False]


def test_a_tensor_that_several_operations_save_moves_once() -> None:
    host, x = _Host(0), torch.randn(64, 64)
    moved = host.pack(x)
    assert host.pack(x) is moved
    assert host.pack(x.detach()) is moved
    assert host.pack(x.t()) is not moved
    assert torch.equal(host.unpack(host.pack(x.t())), x.t())
    before = x.clone()
    x.add_(1)
    assert host.pack(x) is not moved
    assert torch.equal(host.unpack(moved), before)


def test_memory_that_is_used_again_is_not_taken_for_what_it_held() -> None:
    host, kept = _Host(0), []
    for value in range(20):
        x = torch.full((64,), float(value))
        kept.append(host.pack(x))
        del x  # the next one may well get its address
    assert [float(host.unpack(each)[0]) for each in kept] == list(range(20))


def test_strides_come_back() -> None:
    x = (torch.randn(2, 3, 8, 8, requires_grad=True) * 1.0).to(memory_format=torch.channels_last)
    with offloading(min_bytes=0):
        y = x.square()
    assert y.grad_fn._saved_self.stride() == x.stride()


def test_a_change_in_place_of_what_stayed_is_still_an_error() -> None:
    x = torch.randn(4, requires_grad=True)
    with offloading(min_bytes=1024):
        y = x.exp()
    y.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_an_expanded_tensor_is_not_blown_up() -> None:
    x = torch.randn(1, 64, requires_grad=True) * 1.0
    wide = x.expand(4096, 64)
    with offloading(min_bytes=0):
        y = wide.square()
    assert y.grad_fn._saved_self.untyped_storage() is x.untyped_storage()


def _profile(machine: Machine = CARD) -> Profile:
    plain = profile(nn.Linear(1, 1), torch.zeros(1, 1), loss=lambda y, x: y.sum())
    ops = (
        Op("a", Phase.FORWARD, "m", reads=(0,)),
        Op("b", Phase.FORWARD, "m", reads=(1,)),
        Op("c", Phase.FORWARD, "m", reads=(2, 3)),
        Op("c'", Phase.BACKWARD, "m", reads=(2,), source=2),
        Op("a'", Phase.BACKWARD, "m", reads=(1, 3), source=0),
    )
    size = 10**6
    storages = (
        Storage(size, Kind.PARAMETER, ALWAYS, None),
        Storage(size, Kind.ACTIVATION, 0, 4),
        Storage(size, Kind.ACTIVATION, 1, 3),
        Storage(10, Kind.ACTIVATION, 1, 4),
    )
    trace = Trace(ops, storages)
    return dataclasses.replace(plain, traces=(trace,), machine=machine)


def test_predicted_by_hand() -> None:
    plain, changed = _profile(), Offload().predict(_profile())
    names = [op.name for op in changed.trace.ops]
    move = "aten._to_copy.default"
    assert names == ["a", "b", move, "c", move, move, "c'", move, "a'"]
    lives = [(s.birth, s.death) for s in changed.trace.storages]
    assert lives == [(ALWAYS, None), (0, 1), (1, 3), (1, 8), (7, 8), (5, 6)]
    assert changed.trace.ops[8].reads == (4, 3)
    assert changed.trace.ops[6].reads == (5,)
    assert plain.peak == 3_000_010
    assert changed.peak == 3_000_010  # both are alive while b runs
    moved = 4 * (10**6 / 1e9 + 1e-6)
    assert changed.seconds == pytest.approx(plain.seconds + moved)


def test_predicted_on_a_model() -> None:
    case = next(case for case in ZOO if case.name == "gpt2")
    plain = profile(
        case.build(), case.batch(case.rows[1]), optimizer=torch.optim.AdamW, machine="rtx-4090"
    )
    offload = Offload()
    assert offload.refuse(plain) == ""
    changed = offload.predict(plain)
    assert changed.peak < 0.7 * plain.peak
    assert changed.static == plain.static
    assert changed.seconds > plain.seconds


class _Elsewhere(offload._Moved):
    """A tensor in memory that torch's allocator does not count, as the host's is on a card."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.origin = weakref.ref(tensor.untyped_storage())
        self._there = np.array(tensor.detach().numpy(), order="K")

    def back(self) -> torch.Tensor:
        return torch.from_numpy(self._there).clone()


MEASURED = [case for case in ZOO if case.name in ("bert", "llama", "resnet", "swin", "unet")]


@pytest.mark.parametrize("case", MEASURED, ids=lambda case: case.name)
def test_the_predicted_peak_holds(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offload, "_Moved", _Elsewhere)
    model, batch = case.build(), case.batch(case.rows[1])
    optimizer = torch.optim.AdamW(model.parameters())
    prof = profile(model, batch, optimizer=torch.optim.AdamW, loss=case.loss)
    predicted = Offload().predict(dataclasses.replace(prof, machine=CARD))

    def step() -> None:
        with Offload().context():
            plain_step(model, batch, optimizer, StepOptions(loss=case.loss))

    step()
    step()
    peak = measure_step(step, roots=lambda: standing(model, batch, optimizer)).peak
    assert peak < 0.9 * prof.peak
    assert predicted.peak == pytest.approx(peak, rel=0.05)


def test_proposals_and_refusals() -> None:
    plain = _profile()
    (proposal,) = Offload.propose(plain)
    assert proposal == Offload()
    assert proposal.fidelity(plain) is Fidelity.EXACT
    assert proposal.refuse(plain) == ""
    cpu = dataclasses.replace(CARD, device="cpu")
    assert "no memory of its own" in proposal.refuse(_profile(cpu))
    assert "not known" in proposal.refuse(_profile(dataclasses.replace(CARD, link=None)))
    assert Offload.slot is Slot.ACTIVATIONS
    assert Offload.from_options(proposal.options()) == proposal
    with pytest.raises(InputError):
        Offload.from_options({"min_bytes": -1})
    with pytest.raises(InputError):
        offloading(min_bytes=-1)
