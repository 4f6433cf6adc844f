"""What the optimizer's step is predicted to cost, against a trace and a measurement of it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from shoestring.core.fidelity import Fidelity
from shoestring.core.profile import Profile
from shoestring.core.technique import Technique
from shoestring.core.trace import ALWAYS, Kind, Phase, Trace
from shoestring.measure.tracing.allocator import measure_step, standing, steady_step
from shoestring.optim import ReleaseGradients, SlicedStep
from shoestring.optim.rewrite import update_span
from shoestring.planner.profiling import profile

TECHNIQUES = [SlicedStep(), ReleaseGradients()]
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "amsgrad": functools.partial(torch.optim.AdamW, amsgrad=True, maximize=True),
    "adam": functools.partial(torch.optim.Adam, weight_decay=0.1, maximize=True),
    "fused": functools.partial(torch.optim.AdamW, fused=True),
    "sgd": functools.partial(torch.optim.SGD, lr=0.1),
    "momentum": functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.1),
    "nesterov": functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True),
    "all": functools.partial(
        torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True, maximize=True, weight_decay=0.1
    ),
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Model(nn.Module):
    """Its largest parameter is a table of a few slices; the optimizer's step binds."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9000, 96)
        self.layers = nn.Sequential(
            *(nn.Sequential(nn.Linear(96, 256), nn.GELU(), nn.Linear(256, 96)) for _ in range(3))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(self.table(x)).square().mean()


def batch(rows: int = 4) -> torch.Tensor:
    return torch.arange(rows * 8).reshape(rows, 8)


@functools.cache
def plain(name: str) -> Profile:
    return profile(Model(), batch(), optimizer=OPTIMIZERS[name])


def check_consistent(trace: Trace) -> None:
    last = len(trace.ops) - 1
    for index, op in enumerate(trace.ops):
        for number in (*op.reads, *op.writes):
            storage = trace.storages[number]
            assert storage.birth <= index, (op.name, storage)
            assert storage.death is None or storage.death >= index, (op.name, storage)
    for storage in trace.storages:
        assert ALWAYS <= storage.birth <= last
        assert storage.death is None or storage.birth <= storage.death <= last
    for number, index in trace.accumulated.items():
        assert trace.storages[number].kind is Kind.GRADIENT
        assert trace.storages[number].birth <= index


@pytest.mark.parametrize("technique", TECHNIQUES, ids=lambda t: t.name)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_predicted_equals_measured(name: str, technique: Technique) -> None:
    predicted = technique.predict(plain(name))
    check_consistent(predicted.trace)
    model = Model()
    optimizer = technique.make_optimizer(OPTIMIZERS[name](model.parameters()))
    step = steady_step(model, batch(), optimizer)
    step()
    step()
    measured = measure_step(step, roots=lambda: standing(model, batch(), optimizer))
    assert predicted.peak == pytest.approx(measured.peak, rel=0.005)
    assert predicted.peak - predicted.static == pytest.approx(
        measured.peak - measured.static, rel=0.01
    )


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_predicted_slices_equal_a_trace_of_them(name: str) -> None:
    predicted = SlicedStep().predict(plain(name))

    def make(params: list[nn.Parameter]) -> torch.optim.Optimizer:
        return SlicedStep().make_optimizer(OPTIMIZERS[name](params))

    traced = profile(Model(), batch(), optimizer=make)
    start, _ = update_span(traced.trace)
    of_step = int(traced.trace.timeline()[start:].max())
    begin, _ = update_span(predicted.trace)
    assert int(predicted.trace.timeline()[begin:].max()) == pytest.approx(of_step, abs=64)
    assert predicted.peak == pytest.approx(traced.peak, abs=64)


@pytest.mark.parametrize("name", ["adamw", "nesterov"])
def test_each_gives_less_and_the_release_least(name: str) -> None:
    before = plain(name)
    slices = SlicedStep().predict(before)
    none = ReleaseGradients().predict(before)
    assert none.peak < slices.peak < before.peak
    assert before.static == slices.static == none.static
    for changed in (slices, none):
        assert changed.flops == before.flops
        assert sum(op.traffic for op in changed.trace.ops) == pytest.approx(
            sum(op.traffic for op in before.trace.ops), rel=1e-3
        )
        assert changed.fidelity is Fidelity.EXACT


def test_released_gradients_die_one_by_one() -> None:
    trace = ReleaseGradients().predict(plain("adamw")).trace
    grads = {i: s for i, s in enumerate(trace.storages) if s.kind is Kind.GRADIENT}
    assert len(grads) == len(list(Model().parameters()))
    for number, storage in grads.items():
        assert storage.death is not None
        op = trace.ops[storage.death]
        assert op.phase is Phase.OPTIMIZER
        assert number in op.reads
        between = trace.ops[trace.accumulated[number] + 1 : storage.death]
        assert all(each.phase is Phase.OPTIMIZER for each in between)
    deaths = [storage.death for storage in grads.values()]
    assert len(set(deaths)) == len(deaths)


def test_clipping_stays_before_the_slices() -> None:
    clipped = profile(Model(), batch(), optimizer=torch.optim.AdamW, clip_norm=1.0)
    start, _ = update_span(clipped.trace)
    clip = [op.name for op in clipped.trace.ops[:start] if op.phase is Phase.OPTIMIZER]
    assert clip
    changed = SlicedStep().predict(clipped).trace
    check_consistent(changed)
    kept = [op.name for op in changed.ops if op.phase is Phase.OPTIMIZER]
    assert kept[: len(clip)] == clip
    assert set(kept[len(clip) :]) == {"shoestring.sliced_update"}


def test_lists_of_tensors_are_gone_on_a_card() -> None:
    model = nn.Sequential(*(nn.Linear(300, 300) for _ in range(9)))
    card = profile(
        model,
        torch.zeros(2, 300),
        optimizer=torch.optim.AdamW,
        loss=lambda output, _: output.square().mean(),
        machine="h200",
    )
    assert any("foreach" in op.name for op in card.trace.ops)
    changed = SlicedStep().predict(card)
    check_consistent(changed.trace)
    assert not any("foreach" in op.name for op in changed.trace.ops)
    assert changed.peak < card.peak


def test_every_batch_shape_is_predicted() -> None:
    both = profile(Model(), batch(), optimizer=torch.optim.AdamW, other_batches=(batch(64),))
    for technique in TECHNIQUES:
        changed = technique.predict(both)
        assert [t.rows for t in changed.traces] == [4, 64]
        for before, after in zip(both.traces, changed.traces, strict=True):
            assert after.peak < before.peak


@pytest.mark.parametrize("technique", TECHNIQUES, ids=lambda t: t.name)
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"custom": True}, "function of the user's own"),
        ({"optimizer": ""}, "no optimizer"),
        ({"optimizer": "torch.optim.rmsprop.RMSprop"}, "RMSprop"),
        ({"optimizer_options": {"capturable": True}}, "capturable"),
    ],
)
def test_both_refuse(technique: Technique, change: dict[str, object], reason: str) -> None:
    known = plain("adamw")
    assert technique.refuse(known) == ""
    changed = dataclasses.replace(known, step=dataclasses.replace(known.step, **change))
    assert reason in technique.refuse(changed)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"clip_norm": 1.0}, "global norm"),
        ({"accumulate": 2}, "accumulated"),
        ({"set_to_none": False}, "set_to_none"),
        ({"autocast": "float16"}, "GradScaler"),
    ],
)
def test_release_refuses(change: dict[str, object], reason: str) -> None:
    known = plain("adamw")
    changed = dataclasses.replace(known, step=dataclasses.replace(known.step, **change))
    assert reason in ReleaseGradients().refuse(changed)
    assert SlicedStep().refuse(changed) == ""


def test_a_fused_step_needs_no_slices() -> None:
    fused = profile(Model(), batch(), optimizer=functools.partial(torch.optim.AdamW, fused=True))
    assert "fused" in SlicedStep().refuse(fused)
    assert ReleaseGradients().refuse(fused) == ""
    changed = ReleaseGradients().predict(fused)
    assert all(op.workspace == 0 for op in changed.trace.ops if "sliced" in op.name)
    assert changed.peak <= fused.peak


def test_they_are_refused_where_there_is_no_optimizer() -> None:
    alone = profile(Model(), batch())
    for technique in (SlicedStep(), ReleaseGradients()):
        assert technique.refuse(plain("adamw")) == ""
        assert technique.refuse(alone) == "the step has no optimizer."
