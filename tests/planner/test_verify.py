"""verify: measures the changed step, and leaves nothing behind."""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import shoestring
from shoestring import Budget, Plan
from shoestring.core import InputError
from shoestring.measure._torch import record_allocations
from shoestring.measure.tracing import allocator
from shoestring.measure.tracing.allocator import Measured, steady_step
from shoestring.planner import verify as verify_module


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.norm, self.down = nn.Linear(48, 192), nn.BatchNorm1d(192), nn.Linear(192, 48)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls = self.calls + 1  # another tensor in the buffer's place
        return x + self.down(nn.functional.dropout(torch.relu(self.norm(self.up(x))), 0.1))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(4))
        self.frozen = nn.Linear(48, 48).requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return self.frozen(x).square().mean()


def batch() -> torch.Tensor:
    return torch.randn(512, 48, generator=torch.Generator().manual_seed(0))


def planned(net: nn.Module, memory: str) -> Plan:
    prof = shoestring.profile(net, batch(), optimizer=torch.optim.AdamW)
    return shoestring.plan(prof, Budget(memory=memory))


def everything(net: nn.Module) -> dict[str, bytes]:
    """Return the bytes of all that verify must leave as it was."""
    found = {k: v.numpy(force=True).tobytes() for k, v in net.state_dict(keep_vars=True).items()}
    for name, parameter in net.named_parameters():
        gradient = parameter.grad
        found["grad " + name] = b"" if gradient is None else gradient.numpy(force=True).tobytes()
    found["buffers"] = repr([id(b) for b in net.buffers()]).encode()
    found["flags"] = repr(
        [(m.training, p.requires_grad) for m in net.modules() for p in m.parameters()]
    ).encode()
    found["torch"] = torch.get_rng_state().numpy().tobytes()
    found["numpy"] = repr(np.random.get_state()).encode()  # noqa: NPY002 - the one that must stay
    found["python"] = repr(random.getstate()).encode()
    return found


@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize("memory", ["100%", "65%"])
@pytest.mark.parametrize("gradients", [False, True])
def test_everything_is_bitwise_as_before(applied: bool, memory: str, gradients: bool) -> None:
    net = Net()
    if gradients:
        net(batch()).backward()
    plan = planned(net, memory)
    assert bool(plan.steps) == (memory == "65%")
    if applied:
        plan.apply(net)
    before = everything(net)
    check = plan.verify(net, batch())
    assert everything(net) == before
    assert plan.applied(net) == applied or not plan.steps
    assert check.measured.peak > check.measured.static > 0


def test_everything_is_as_before_when_the_step_fails() -> None:
    net = Net()
    net(batch()).backward()
    plan = planned(net, "65%")
    before = everything(net)
    calls: list[int] = []

    def loss(output: object, batch: object) -> torch.Tensor:
        assert isinstance(output, torch.Tensor)
        calls.append(1)
        if len(calls) == 2:
            raise KeyError("in the second step")
        return output

    with pytest.raises(KeyError):
        plan.verify(net, batch(), loss=loss)
    assert everything(net) == before
    assert not plan.applied(net)


def bert() -> tuple[nn.Module, dict[str, torch.Tensor]]:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=1000,
        hidden_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=512,
    )
    tokens = torch.arange(16 * 64).reshape(16, 64) % 1000
    labels = {"attention_mask": torch.ones_like(tokens), "labels": tokens[:, 0] % 2}
    return transformers.BertForSequenceClassification(config).train(), {
        "input_ids": tokens,
        **labels,
    }


def gpt2() -> tuple[nn.Module, dict[str, torch.Tensor]]:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=1000, n_positions=64, n_embd=128, n_layer=3, n_head=4
    )
    tokens = torch.arange(16 * 64).reshape(16, 64) % 1000
    return transformers.GPT2LMHeadModel(config).train(), {"input_ids": tokens, "labels": tokens}


@pytest.mark.filterwarnings("ignore:checkpointed blocks do not fill the key-value cache")
@pytest.mark.parametrize("make", [bert, gpt2])
@pytest.mark.parametrize("memory", ["100%", "70%"])
def test_predicted_and_measured_agree_within_5_percent(
    make: Callable[[], tuple[nn.Module, dict[str, torch.Tensor]]], memory: str
) -> None:
    model, inputs = make()
    prof = shoestring.profile(model, inputs, optimizer=torch.optim.AdamW)
    plan = shoestring.plan(prof, Budget(memory=memory))
    check = plan.verify(model, inputs)
    assert abs(check.error) <= 0.05, str(check)
    assert check.error == check.predicted.peak / check.measured.peak - 1
    if memory == "70%":
        assert check.measured.peak <= 0.75 * plan.plain.peak
    assert "predicted" in str(check)
    assert "measured" in str(check)


def test_the_whole_of_verify_takes_no_more_memory_than_a_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net, inputs = Net(), batch()
    plan = planned(net, "100%")
    optimizer = torch.optim.AdamW(net.parameters())
    step = steady_step(net, inputs, optimizer)
    step()
    standing = functools.partial(allocator.standing, net, inputs, optimizer)
    one = allocator.measure_step(step, roots=standing)
    del optimizer, step, standing

    def measure(step: Callable[[], None], *, roots: object) -> Measured:
        step()  # one profiler at a time, and the outer one is this test's
        return Measured(1, 1, 1, 1)

    monkeypatch.setattr(verify_module, "measure_step", measure)
    plan.verify(net, inputs)  # once before, so that nothing is made lazily below
    for parameter in net.parameters():
        parameter.grad = None
    storages = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
        for t in (*net.parameters(), *net.buffers(), inputs)
    }
    with record_allocations() as events:
        net(inputs).backward()  # here, so that the profiler sees these gradients go
        plan.verify(net, inputs)
    sizes = [sum(storages.values()), *(nbytes for _, _, nbytes in events)]
    highest = max(itertools.accumulate(sizes))
    assert len(events) > 1000
    assert one.peak * 0.9 < highest <= one.peak * 1.001
    assert all(p.grad is not None for p in net.parameters() if p.requires_grad)


def test_a_model_or_a_batch_without_data_is_refused() -> None:
    net = Net()
    plan = planned(net, "100%")
    with torch.device("meta"):
        empty = Net()
    with pytest.raises(InputError, match="has no weights to run"):
        plan.verify(empty, batch())
    with pytest.raises(InputError, match="has no data to run"):
        plan.verify(net, torch.empty(512, 48, device="meta"))


def test_without_room_on_disk_nothing_is_lost(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    net = Net()
    net(batch()).backward()
    plan = planned(net, "65%")
    before = everything(net)
    save, calls = torch.save, []

    def full(tensor: torch.Tensor, path: Path) -> None:
        calls.append(path)
        if len(calls) > 20:
            raise OSError(28, "No space left on device")
        save(tensor, path)

    monkeypatch.setattr(torch, "save", full)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(InputError, match="cannot be kept on disk"):
        plan.verify(net, batch())
    assert everything(net) == before
    assert list(tmp_path.iterdir()) == []
