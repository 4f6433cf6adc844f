"""The tracer against hand counts and against the allocator's own account."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from shoestring.core.errors import AssumptionWarning, InputError, RefusedError
from shoestring.core.trace import ALWAYS, Kind, Phase
from shoestring.measure.tracing.allocator import measure_step, standing
from shoestring.measure.tracing.step import StepOptions, plain_step
from shoestring.planner.profiling import profile


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def mean_square(output: torch.Tensor, batch: object) -> torch.Tensor:
    return output.square().mean()


class Tied(nn.Module):
    """One weight with two gradients, and a residual with two uses."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(500, 32)
        self.inner = nn.Linear(32, 32)
        self.norm = nn.LayerNorm(32)
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(32, 500, bias=False)
        self.head.weight = self.table.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.table(x)
        return self.head(self.norm(h + self.drop(self.inner(h).relu())))


class Statistics(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x).flatten(1).sum(1)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(16, 32, num_layers=2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)[0]


class Branching(nn.Module):
    """Its course depends on data."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(x)
        return y.exp() if bool(y.sum() > -1e9) else y


TOKENS = torch.arange(64).reshape(4, 16)
MODELS = {
    "tied": (Tied, TOKENS),
    "statistics": (Statistics, torch.ones(4, 3, 16, 16)),
    "recurrent": (Recurrent, torch.ones(4, 10, 16)),
    "branching": (Branching, torch.ones(64, 8)),
}
OPTIMIZERS = {
    "adamw": torch.optim.AdamW,
    "foreach": functools.partial(torch.optim.AdamW, foreach=True),
    "sgd": functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9),
    "adafactor": torch.optim.Adafactor,
    "nadam": torch.optim.NAdam,
}


CELLS = [
    *((model, optimizer, {}) for model in MODELS for optimizer in OPTIMIZERS),
    *(("tied", optimizer, {"clip_norm": 1.0}) for optimizer in ("adamw", "foreach")),
    *((model, "sgd", {"set_to_none": False}) for model in ("tied", "statistics")),
]


@pytest.mark.parametrize(("name", "way", "options"), CELLS, ids=str)
def test_the_peak_is_the_allocator_s(name: str, way: str, options: dict[str, float]) -> None:
    (build, batch), optimizer = MODELS[name], OPTIMIZERS[way]
    model = build()
    predicted = profile(model, batch, optimizer=optimizer, loss=mean_square, **options)
    made = optimizer(model.parameters())
    step = functools.partial(plain_step, model, batch, made, StepOptions(mean_square, **options))
    step()
    step()
    kept = not options.get("set_to_none", True)
    measured = measure_step(step, roots=lambda: standing(model, batch, made, gradients=kept))
    assert predicted.peak == pytest.approx(measured.peak, rel=0.02)
    assert predicted.static == pytest.approx(measured.static, rel=0.01)


def test_a_linear_layer_by_hand() -> None:
    model = nn.Linear(100, 50, bias=False)
    prof = profile(model, torch.zeros(8, 100), loss=mean_square)
    weight, x, y = 4 * 50 * 100, 4 * 8 * 100, 4 * 8 * 50
    assert prof.static == weight + x
    assert prof.flops == 2 * 2 * 8 * 100 * 50  # forward, and the weight's gradient
    # y and its square's gradient are there when the weight's gradient is made.
    assert weight + x + y + weight <= prof.peak <= weight + x + 4 * y + weight + 64


def test_storages_are_named_by_what_they_hold() -> None:
    prof = profile(Tied(), TOKENS, optimizer=torch.optim.AdamW, loss=mean_square)
    sizes = dict.fromkeys(Kind, 0)
    for storage in prof.trace.storages:
        sizes[storage.kind] += storage.nbytes
    weights = 4 * (500 * 32 + 32 * 32 + 32 + 64)
    assert sizes[Kind.PARAMETER] == weights
    assert sizes[Kind.GRADIENT] == weights
    assert sizes[Kind.OPTIMIZER] == pytest.approx(2 * weights, rel=0.01)
    assert sizes[Kind.BATCH] == TOKENS.nbytes
    assert prof.modules["inner"].parameters == 4 * (32 * 32 + 32)
    assert prof.modules[""].parameters == weights


def test_backward_is_attributed_to_the_module_it_differentiates() -> None:
    prof = profile(Tied(), TOKENS, loss=mean_square)
    backward = {op.module for op in prof.trace.ops if op.phase is Phase.BACKWARD}
    assert {"table", "inner", "norm", "drop", "head"} <= backward


def test_dropout_is_random_and_attention_without_it_is_not() -> None:
    prof = profile(Tied(), TOKENS, loss=mean_square)
    assert {op.module for op in prof.trace.ops if op.random} == {"drop"}


def test_recomputation_is_seen() -> None:
    class Recomputed(Branching):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return checkpoint(lambda y: self.layer(y).sin().exp(), x, use_reentrant=False)

    prof = profile(Recomputed(), torch.ones(4, 8, requires_grad=True), loss=mean_square)
    phases = {op.phase for op in prof.trace.ops}
    assert Phase.RECOMPUTE in phases
    assert prof.step.recomputes


def test_a_foreach_sheet_takes_the_transient_copy() -> None:
    model = Tied()
    plain = profile(model, TOKENS, optimizer=torch.optim.AdamW, loss=mean_square)
    card = profile(model, TOKENS, optimizer=torch.optim.AdamW, loss=mean_square, machine="rtx-4090")
    names = {op.name for op in card.trace.ops if op.phase is Phase.OPTIMIZER}
    assert any(name.startswith("aten._foreach") for name in names)
    assert not any("_foreach" in op.name for op in plain.trace.ops)
    assert all(s.nbytes % 512 == 0 for s in card.trace.storages)


def test_the_user_s_model_and_random_numbers_stay_as_they_are() -> None:
    model = nn.Sequential(Tied(), nn.Dropout(0.5))
    before = copy.deepcopy(model.state_dict())
    state, hooks = torch.get_rng_state(), [len(m._forward_hooks) for m in model.modules()]
    optimizer = torch.optim.AdamW(model.parameters())
    profile(model, TOKENS, optimizer=optimizer, loss=mean_square)
    assert torch.equal(state, torch.get_rng_state())
    assert [len(m._forward_hooks) for m in model.modules()] == hooks
    assert all(p.grad is None for p in model.parameters())
    assert not optimizer.state
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_data_dependent_steps_are_traced_on_real_copies_and_say_so() -> None:
    model = Branching()
    before = copy.deepcopy(model.state_dict())
    prof = profile(model, torch.ones(4, 8), optimizer=torch.optim.AdamW, loss=mean_square)
    assert any("depends on data" in sentence for sentence in prof.assumptions)
    assert not prof.step.fake
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    with pytest.raises(InputError, match="depends on data"):
        profile(Branching().to("meta"), torch.ones(4, 8, device="meta"), loss=mean_square)


def test_meta_models_are_taken_as_they_are() -> None:
    real, meta = Tied(), Tied().to("meta")
    meta.head.weight = meta.table.weight
    expected = profile(real, TOKENS, optimizer=torch.optim.AdamW, loss=mean_square)
    got = profile(meta, TOKENS.to("meta"), optimizer=torch.optim.AdamW, loss=mean_square)
    assert got.peak == expected.peak
    assert got.seconds == pytest.approx(expected.seconds)


def test_a_step_of_the_user_s_own_is_traced_whole() -> None:
    def step(model: nn.Module, batch: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
        for part in batch.split(2):
            (model(part).square().mean() / 2).backward()
        optimizer.step()
        optimizer.zero_grad()

    model = Tied()
    whole = profile(model, TOKENS, optimizer=torch.optim.AdamW, loss=mean_square)
    parts = profile(model, TOKENS, optimizer=torch.optim.AdamW, step=step)
    assert parts.step.custom
    assert parts.static == whole.static
    made = torch.optim.AdamW(model.parameters())
    step(model, TOKENS, made)
    measured = measure_step(
        lambda: step(model, TOKENS, made), roots=lambda: standing(model, TOKENS, made)
    )
    assert parts.peak == pytest.approx(measured.peak, rel=0.02)
    with pytest.raises(InputError, match="no effect"):
        profile(model, TOKENS, step=step, clip_norm=1.0)


def test_the_largest_of_several_batches_counts() -> None:
    model = Tied()
    small = profile(model, TOKENS[:1], loss=mean_square)
    large = profile(model, TOKENS, loss=mean_square)
    both = profile(model, TOKENS[:1], loss=mean_square, other_batches=[TOKENS])
    assert small.peak < large.peak == both.peak


def test_a_missing_loss_is_said() -> None:
    with pytest.warns(AssumptionWarning, match="mean of its output"):
        prof = profile(Tied(), TOKENS)
    assert any("mean of its output" in sentence for sentence in prof.assumptions)


def test_what_cannot_be_copied_is_refused() -> None:
    model = Tied()
    model.lock = __import__("threading").Lock()
    with pytest.raises(RefusedError, match="cannot be copied"):
        profile(model, TOKENS, loss=mean_square)


def test_what_survives_the_step_is_always_there() -> None:
    class Caching(Tied):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = super().forward(x)
            self.seen = y.detach().clone()
            return y

    prof = profile(Caching(), TOKENS, loss=mean_square)
    kept = [s for s in prof.trace.storages if s.nbytes == 4 * 64 * 500 and s.birth == ALWAYS]
    assert len(kept) == 1
