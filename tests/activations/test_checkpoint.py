"""Block checkpointing is exact, leaves no trace, and costs what is predicted."""

from __future__ import annotations

import copy
import dataclasses
import gc
import inspect
import random
import time
import warnings
import weakref
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
import transformers
from torch import nn

from shoestring.activations.checkpoint import BlockCheckpointing
from shoestring.core.errors import AssumptionWarning, InputError, NoEffectWarning, RefusedError
from shoestring.core.fidelity import Fidelity
from shoestring.core.profile import Profile
from shoestring.core.technique import Slot
from shoestring.core.trace import ALWAYS, Block, Kind, Op, Phase, Storage, Trace
from shoestring.measure.tracing.allocator import measure_step, standing, steady_step
from shoestring.measure.tracing.blocks import repeated_blocks
from shoestring.measure.tracing.fake import map_tensors
from shoestring.measure.tracing.step import StepOptions, forward_loss
from shoestring.planner.profiling import profile
from tests.zoo import ZOO, Case

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{text}:shoestring.core.errors.AssumptionWarning")
    for text in ("checkpointed blocks do not fill", "the model returns no loss")
]
WITHOUT_BLOCKS = {"fno", "lstm", "seq2seq"}
WITH_BLOCKS = [case for case in ZOO if case.name not in WITHOUT_BLOCKS]
NAMED = {case.name: case for case in ZOO}


def _all_blocks(model: nn.Module) -> BlockCheckpointing:
    return BlockCheckpointing(blocks=tuple(path for path, _ in repeated_blocks(model)))


@dataclasses.dataclass
class _Outcome:
    losses: list[torch.Tensor]
    gradients: list[dict[str, torch.Tensor]]
    buffers: dict[str, torch.Tensor]
    torch_state: torch.Tensor
    numpy_state: np.ndarray


Loss = Callable[[object, object], torch.Tensor]


def _train(model: nn.Module, batch: object, loss: Loss | None = None) -> _Outcome:
    """Two steps of SGD, so that a trace left by the first one shows in the second."""
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002  # wav2vec2 masks by numpy's global numbers
    random.seed(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    losses, gradients = [], []
    for _ in range(2):
        optimizer.zero_grad()
        value, _ = forward_loss(model, batch, StepOptions(loss=loss))
        value.backward()
        losses.append(value.detach())
        grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        gradients.append(grads)
        optimizer.step()
    return _Outcome(
        losses,
        gradients,
        {n: b.clone() for n, b in model.named_buffers()},
        torch.get_rng_state(),
        np.random.get_state()[1].copy(),  # noqa: NPY002
    )


def _assert_equal(changed: _Outcome, plain: _Outcome) -> None:
    for ours, theirs in zip(changed.losses, plain.losses, strict=True):
        assert torch.equal(ours, theirs)
    for ours, theirs in zip(changed.gradients, plain.gradients, strict=True):
        assert ours.keys() == theirs.keys()
        largest = max(float(g.abs().max()) for g in theirs.values())
        assert largest > 0
        for name, gradient in theirs.items():
            assert float((ours[name] - gradient).abs().max()) <= 1e-12 * largest, name
    assert changed.buffers.keys() == plain.buffers.keys()
    for name, buffer in plain.buffers.items():
        assert torch.equal(changed.buffers[name], buffer), name
    assert torch.equal(changed.torch_state, plain.torch_state)
    assert (changed.numpy_state == plain.numpy_state).all()


def _double(batch: object) -> object:
    return map_tensors(batch, lambda t: t.double() if t.is_floating_point() else t)


def _check(model: nn.Module, batch: object, technique: BlockCheckpointing | None = None) -> None:
    plain = copy.deepcopy(model)
    (technique or _all_blocks(model)).apply(model)
    _assert_equal(_train(model, batch), _train(plain, batch))


@pytest.fixture
def float64() -> object:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


# --- what makes recomputation hard -------------------------------------------------------


class _Residual(nn.Module):
    def __init__(self, *, norm: str = "batch", dropout: float = 0.3) -> None:
        super().__init__()
        linear = nn.Linear(6, 6)
        self.linear = nn.utils.spectral_norm(linear) if norm == "spectral" else linear
        self.norm = nn.BatchNorm1d(6) if norm == "batch" else nn.LayerNorm(6)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.dropout(torch.tanh(self.norm(self.linear(x))))


def _stack(**options: object) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*[_Residual(**options) for _ in range(3)], nn.Linear(6, 1)).double()  # type: ignore[arg-type]


def _rows() -> torch.Tensor:
    return torch.randn(5, 6, generator=torch.Generator().manual_seed(3)).double()


@pytest.mark.parametrize("norm", ["batch", "layer", "spectral"])
@pytest.mark.parametrize("training", [True, False])
def test_exact_with_buffers_that_the_forward_changes(norm: str, training: bool) -> None:
    _check(_stack(norm=norm).train(training), _rows())


def test_exact_with_new_spectral_normalisation() -> None:
    model = _stack(norm="layer")
    for block in model[:3]:
        nn.utils.parametrizations.spectral_norm(block.linear)
    _check(model, _rows())


class _Large(nn.Module):
    """Changes a large buffer without any version counting it, from the second call on."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(20_000))
        self.register_buffer("mask", torch.ones(20_000))
        self.linear, self.other = nn.Linear(6, 6), nn.Linear(6, 6)
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not torch._C._current_graph_task_id() >= 0:
            self.calls += 1
        factor = self.scale[:6] * self.mask[:6]
        if self.calls > 1:
            self.scale.data.mul_(1.25)
        return self.other(torch.tanh(self.linear(x) * factor * self.scale[:6]))


def test_exact_with_a_large_buffer_that_is_changed_unseen_and_late() -> None:
    _check(nn.Sequential(_Large(), _Large()).double(), _rows())


class _Replaces(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(6))
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        return self.second(torch.tanh(self.first(x - self.mean)))


def test_exact_with_a_buffer_that_the_forward_replaces() -> None:
    _check(nn.Sequential(_Replaces(), _Replaces()).double(), _rows())


class _Tied(nn.Module):
    """One block used several times, as ALBERT does."""

    def __init__(self) -> None:
        super().__init__()
        self.block = _Residual()
        self.head = nn.Linear(6, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(3):
            x = self.block(x)
        return self.head(x)


def test_exact_with_a_block_used_several_times() -> None:
    _check(_Tied().double(), _rows(), BlockCheckpointing(blocks=("block",)))


def test_exact_with_albert() -> None:
    config = transformers.AlbertConfig(
        vocab_size=50,
        hidden_size=32,
        num_attention_heads=2,
        intermediate_size=64,
        num_hidden_layers=3,
        embedding_size=16,
        hidden_dropout_prob=0.1,
    )
    model = transformers.AlbertForSequenceClassification(config).double().train()
    batch = {"input_ids": torch.arange(12).view(2, 6), "labels": torch.tensor([0, 1])}
    path = "albert.encoder.albert_layer_groups.0"
    _check(model, batch, BlockCheckpointing(blocks=(path,)))


def test_exact_with_blocks_inside_blocks() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(_Residual(), _Residual())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x) * 0.5

    model = nn.Sequential(Outer(), Outer(), nn.Linear(6, 1)).double()
    _check(model, _rows(), BlockCheckpointing(blocks=("0", "1", "0.inner.0", "1.inner.1")))


def test_exact_with_several_forwards_before_one_backward() -> None:
    plain, changed = _stack(), _stack()
    _all_blocks(changed).apply(changed)
    results = []
    for model in (plain, changed):
        torch.manual_seed(1)
        (model(_rows()).sum() + model(_rows() * 2).square().sum()).backward()
        grads = [p.grad for p in model.parameters()]
        results.append([*grads, *model.buffers(), torch.get_rng_state()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_exact_with_two_backwards_through_one_forward() -> None:
    plain, changed = _stack(), _stack()
    _all_blocks(changed).apply(changed)
    results = []
    for model in (plain, changed):
        torch.manual_seed(1)
        loss = model(_rows()).sum()
        loss.backward(retain_graph=True)
        loss.backward()
        results.append([*[p.grad for p in model.parameters()], *model.buffers()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_exact_under_autocast() -> None:
    plain, changed = _stack(norm="layer").float(), _stack(norm="layer").float()
    _all_blocks(changed).apply(changed)
    results = []
    for model in (plain, changed):
        torch.manual_seed(1)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(_rows().float()).sum()
        loss.backward()
        results.append([p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


class _Structured(nn.Module):
    """Takes and returns tuples, lists, dicts, None and keywords."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.dropout = nn.Linear(6, 6), nn.Dropout(0.2)

    def forward(
        self,
        pair: tuple[torch.Tensor, list[torch.Tensor]],
        *,
        extra: Mapping[str, torch.Tensor | None] | None = None,
        factor: float = 1.0,
    ) -> tuple[tuple[torch.Tensor, list[torch.Tensor]], dict[str, torch.Tensor | None]]:
        first, (second,) = pair
        add = 0.0 if extra is None else extra["add"]
        first = self.dropout(torch.tanh(self.linear(first) * factor + add))
        return (first, [second + first]), {"add": second * 0.5, "none": None}


class _Caller(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([_Structured(), _Structured(), _Structured()])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pair, extra = (x, [x * 2]), None
        for layer in self.layers:
            pair, extra = layer(pair, extra=extra, factor=0.7)
        return pair[0] + pair[1][0]


def test_exact_with_structured_inputs_and_outputs() -> None:
    _check(_Caller().double(), _rows(), BlockCheckpointing(("layers.0", "layers.1", "layers.2")))


def test_exact_with_frozen_parameters() -> None:
    model = _stack()
    for parameter in model[0].parameters():
        parameter.requires_grad_(False)
    for parameter in model[1].linear.parameters():
        parameter.requires_grad_(False)
    _check(model, _rows())


# --- what is refused ---------------------------------------------------------------------


class _InPlace(_Residual):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mul_(0.5) + self.linear(x)


def test_a_block_that_changes_its_input_is_refused() -> None:
    model = nn.Sequential(nn.Linear(6, 6), _InPlace(), _InPlace()).double()
    BlockCheckpointing(blocks=("1",)).apply(model)
    with pytest.raises(RefusedError, match="changes what it is passed"):
        model(_rows())


def _gpt2() -> nn.Module:
    torch.manual_seed(0)
    config = transformers.GPT2Config(n_embd=32, n_layer=3, n_head=2, vocab_size=50)
    return transformers.GPT2LMHeadModel(config).double().train()


def test_an_empty_cache_is_not_filled_twice_and_it_is_said() -> None:
    model, batch = _gpt2(), {"input_ids": torch.arange(12).view(2, 6)}
    assert model.config.use_cache
    _all_blocks(model).apply(model)
    with pytest.warns(AssumptionWarning, match="cache"):
        output = model(**batch)
    assert output.past_key_values.get_seq_length() == 0
    with torch.no_grad():
        assert model(**batch).past_key_values.get_seq_length() == 6


def test_a_cache_that_another_block_filled_is_refused() -> None:
    model, batch = _gpt2(), {"input_ids": torch.arange(12).view(2, 6)}
    BlockCheckpointing(blocks=("transformer.h.1",)).apply(model)
    with pytest.raises(RefusedError, match="use_cache = False"):
        model(**batch)
    model.config.use_cache = False
    model(**batch)


def test_a_parameter_changed_before_backward_is_an_error_as_without_checkpointing() -> None:
    model = _stack(norm="layer")
    _all_blocks(model).apply(model)
    loss = model(_rows()).sum()
    with torch.no_grad():
        model[0].linear.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified in place"):
        loss.backward()


def test_wrong_blocks_are_refused_and_nothing_is_changed() -> None:
    model = _stack()
    with pytest.raises(RefusedError, match="no block 'nowhere'"):
        BlockCheckpointing(blocks=("0", "nowhere")).apply(model)
    with pytest.raises(RefusedError, match="container"):
        BlockCheckpointing(blocks=("0",)).apply(nn.ModuleList([nn.ModuleList()]))
    assert "forward" not in model[0].__dict__
    BlockCheckpointing(blocks=("1",)).apply(model)
    with pytest.raises(RefusedError, match="already"):
        BlockCheckpointing(blocks=("0", "1")).apply(model)
    assert "forward" not in model[0].__dict__
    with pytest.raises(RefusedError, match="not checkpointed"):
        BlockCheckpointing(blocks=("0",)).remove(model)


def test_a_library_that_checkpoints_already_is_refused() -> None:
    model = _gpt2()
    model.activation_checkpointing_enable()
    with pytest.raises(RefusedError, match="its own library"):
        _all_blocks(model).apply(model)


def test_a_block_that_is_not_called_is_warned_of_once() -> None:
    model = _stack()
    model.spare = _Residual().double()
    model.forward = lambda x: model[1](model[0](x))
    BlockCheckpointing(blocks=("0", "spare")).apply(model)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        model(_rows())
    with pytest.warns(NoEffectWarning, match="'spare' was not called"):
        model(_rows())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(_rows())


def test_no_block_named_is_warned_of() -> None:
    with pytest.warns(NoEffectWarning):
        BlockCheckpointing(blocks=()).apply(_stack())


# --- what stays --------------------------------------------------------------------------


def test_apply_and_remove_leave_everything_else_as_it_was() -> None:
    model = _gpt2()
    technique = _all_blocks(model)
    block = model.transformer.h[0]
    before = {id(m): dict(m.__dict__) for m in model.modules()}
    keys, kind, signature = list(model.state_dict()), type(block), inspect.signature(block.forward)
    technique.apply(model)
    assert list(model.state_dict()) == keys
    assert type(block) is kind
    assert inspect.signature(block.forward) == signature
    technique.remove(model)
    assert not model._forward_hooks
    for module in model.modules():
        assert module.__dict__ == before[id(module)]


def test_a_forward_of_the_instance_is_kept_and_comes_back() -> None:
    model = _stack(norm="layer")

    def own(x: torch.Tensor, scale: float = 2.0) -> torch.Tensor:
        return torch.tanh(model[0].linear(x)) * scale

    model[0].forward = own
    expected = _train(copy.copy(model), _rows())
    fresh = _stack(norm="layer")
    model.load_state_dict(fresh.state_dict())
    BlockCheckpointing(blocks=("0",)).apply(model)
    assert inspect.signature(model[0].forward) == inspect.signature(own)
    _assert_equal(_train(model, _rows()), expected)
    BlockCheckpointing(blocks=("0",)).remove(model)
    assert model[0].forward is own


def test_a_copy_is_checkpointed_on_its_own() -> None:
    model = _stack()
    technique = _all_blocks(model)
    technique.apply(model)
    twin = copy.deepcopy(model)
    assert twin[0].forward.__self__ is twin[0]
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(2)
    twin(_rows()).sum().backward()
    assert all(p.grad is None for p in model.parameters())
    technique.remove(twin)
    with pytest.raises(RefusedError, match="already"):
        technique.apply(model)


def test_inputs_are_freed_with_their_backward_and_not_by_the_garbage_collector() -> None:
    model = _stack(norm="layer")
    _all_blocks(model).apply(model)
    model(_rows()).sum().backward()  # the first recomputation imports things, which makes cycles
    x, references = _rows(), []
    gc.collect()
    gc.disable()
    try:
        for block in model:
            x = block(x)
            references.append(weakref.ref(x.untyped_storage()))
        x.sum().backward()
        del x
        assert [reference() for reference in references] == [None] * 4
    finally:
        gc.enable()


def test_forwards_without_gradients_are_the_plain_ones() -> None:
    model = _stack(norm="layer", dropout=0.0)
    expected = model(_rows())
    _all_blocks(model).apply(model)
    with torch.no_grad():
        assert torch.equal(model(_rows()), expected)
    with torch.inference_mode():
        assert torch.equal(model(_rows()), expected)
    assert not model.requires_grad_(False)(_rows()).requires_grad


@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_compiled_blocks_are_exact(norm: str) -> None:
    plain, changed = _stack(norm=norm, dropout=0.0), _stack(norm=norm, dropout=0.0)
    _all_blocks(changed).apply(changed)
    changed.compile(backend="aot_eager", fullgraph=True)
    _assert_equal(_train(changed, _rows()), _train(plain, _rows()))


def test_compiled_blocks_with_structured_inputs_are_exact() -> None:
    plain, changed = _Caller().double().eval(), _Caller().double().eval()
    changed.load_state_dict(plain.state_dict())
    BlockCheckpointing(blocks=("layers.0", "layers.1")).apply(changed)
    changed.compile(backend="aot_eager", fullgraph=True)
    loss = lambda y, _: y.sum()  # noqa: E731
    _assert_equal(_train(changed, _rows(), loss), _train(plain, _rows(), loss))


# --- what it costs -----------------------------------------------------------------------


def _profiled(case: Case, model: nn.Module) -> Profile:
    batch = case.batch(case.rows[1])
    return profile(model, batch, optimizer=torch.optim.AdamW, loss=case.loss)


def _measured(case: Case, model: nn.Module) -> int:
    batch = case.batch(case.rows[1])
    optimizer = torch.optim.AdamW(model.parameters())
    step = steady_step(model, batch, optimizer, case.loss)
    step()
    return measure_step(step, roots=lambda: standing(model, batch, optimizer)).peak


@pytest.mark.parametrize("name", ["bert", "gpt2", "resnet", "t5", "swin"])
@pytest.mark.parametrize("whole", [True, False], ids=["all", "half"])
def test_predicted_against_traced_and_measured(name: str, whole: bool) -> None:
    case = NAMED[name]
    plain = _profiled(case, case.build())
    every = list(BlockCheckpointing.propose(plain))[-1]
    count = len(every.blocks) if whole else len(every.blocks) // 2
    technique = BlockCheckpointing.with_count(plain, count)
    predicted = technique.predict(plain)
    model = case.build()
    technique.apply(model)
    traced = _profiled(case, model)
    assert traced.step.blocks_checkpointed
    assert predicted.peak < plain.peak
    assert predicted.peak == pytest.approx(traced.peak, rel=0.005)
    assert predicted.flops == traced.flops
    assert predicted.peak == pytest.approx(_measured(case, model), rel=0.05)


@pytest.mark.parametrize("case", WITH_BLOCKS, ids=lambda case: case.name)
def test_predicted_against_traced_on_the_zoo(case: Case) -> None:
    plain = _profiled(case, case.build())
    technique = list(BlockCheckpointing.propose(plain))[-1]
    model = case.build()
    technique.apply(model)
    traced, predicted = _profiled(case, model), technique.predict(plain)
    assert _dead_reads(predicted.trace) == _dead_reads(plain.trace)
    assert predicted.peak == pytest.approx(traced.peak, rel=0.02)
    assert predicted.flops == pytest.approx(traced.flops, rel=0.02)


def _step(blocks: int) -> Trace:
    """A chain: each block saves its input and one inner storage, and its output is the next's."""
    ops: list[Op] = []
    storages = [Storage(100, Kind.PARAMETER, ALWAYS, None), Storage(7, Kind.ACTIVATION, 0, None)]
    ops.append(Op("embed", Phase.FORWARD, "", reads=(0,)))
    spans, saved, x = [], [], 1
    for k in range(blocks):
        a, inner = len(ops), len(storages)
        ops.append(Op("inner", Phase.FORWARD, f"b.{k}", reads=(0, x), flops=5))
        ops.append(Op("outer", Phase.FORWARD, f"b.{k}", reads=(0, inner), flops=3))
        storages += [
            Storage(50, Kind.ACTIVATION, a, None),
            Storage(7, Kind.ACTIVATION, a + 1, None),
        ]
        spans.append((a, a + 2))
        saved.append((x, inner))
        x = inner + 1
    g = len(storages)
    storages.append(Storage(9, Kind.TEMPORARY, len(ops), None))
    ops.append(Op("loss", Phase.BACKWARD, "", reads=(x,)))
    deaths = {x: len(ops) - 1}
    found: list[Block] = []
    for k in reversed(range(blocks)):
        (a, b), c, (before, inner) = spans[k], len(ops), saved[k]
        ops.append(Op("outer'", Phase.BACKWARD, f"b.{k}", reads=(g, inner, 0), source=a + 1))
        ops.append(Op("inner'", Phase.BACKWARD, f"b.{k}", reads=(c + 0 * g, before), source=a))
        deaths[inner], deaths[before] = c, c + 1
        found.append(Block(f"b.{k}", (a, b), (c, c + 2)))
    storages = [
        s if s.birth == ALWAYS else dataclasses.replace(s, death=deaths.get(i, len(ops) - 1))
        for i, s in enumerate(storages)
    ]
    ops = [dataclasses.replace(op, reads=tuple(r for r in op.reads if r < g + 1)) for op in ops]
    return Trace(tuple(ops), tuple(storages), tuple(reversed(found)), 1)


def _as_profile(trace: Trace) -> Profile:
    model = nn.Linear(1, 1)
    plain = profile(model, torch.zeros(1, 1), loss=lambda y, x: y.sum())
    return dataclasses.replace(plain, traces=(trace,))


def test_predicted_by_hand() -> None:
    plain = _as_profile(_step(2))
    trace = BlockCheckpointing(blocks=("b.0",)).predict(plain).trace
    names = [(op.name, op.phase.value) for op in trace.ops if op.module == "b.0"]
    assert names == [
        ("inner", "forward"),
        ("outer", "forward"),
        ("inner", "recompute"),
        ("outer'", "backward"),
        ("inner'", "backward"),
    ]
    inner = plain.trace.blocks[0].forward[0]
    lives = [(s.birth, s.death) for s in trace.storages if s.nbytes == 50]
    again = next(i for i, op in enumerate(trace.ops) if op.phase is Phase.RECOMPUTE)
    assert lives[0] == (inner, inner + 1)
    assert lives[-1] == (again, again + 1)
    assert trace.ops[again + 1].reads[1] == len(trace.storages) - 1
    assert trace.blocks[0].backward == (again + 1, again + 3)
    assert trace.ops[again + 1].source == inner + 1


def test_prediction_is_fast() -> None:
    plain = _as_profile(_step(2500))
    assert len(plain.trace.ops) > 10_000
    technique = list(BlockCheckpointing.propose(plain))[-1]
    assert len(technique.blocks) == 2500
    seconds = []
    for _ in range(3):
        start = time.process_time()
        technique.predict(plain)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.2


def test_what_goes_into_a_block_lives_until_it_runs_again() -> None:
    """Even where nothing of it was kept before, as of the input of a frozen layer."""
    plain = _step(1)
    ops = [
        dataclasses.replace(op, reads=op.reads[:1]) if op.name == "inner'" else op
        for op in plain.ops
    ]
    storages = [dataclasses.replace(s, death=1) if s.birth == 0 else s for s in plain.storages]
    plain = dataclasses.replace(plain, ops=tuple(ops), storages=tuple(storages))
    trace = BlockCheckpointing(blocks=("b.0",)).predict(_as_profile(plain)).trace
    again = next(i for i, op in enumerate(trace.ops) if op.phase is Phase.RECOMPUTE)
    assert trace.ops[again].reads == (0, 1)
    assert trace.storages[1].death is not None
    assert trace.storages[1].death > again


def _dead_reads(trace: Trace) -> int:
    """Count reads of storages that are not there."""
    alive = [(s.birth, len(trace.ops) if s.death is None else s.death) for s in trace.storages]
    sizes = [s.nbytes for s in trace.storages]
    reads = [(i, s) for i, op in enumerate(trace.ops) for s in op.reads if sizes[s]]
    return sum(not alive[s][0] <= i <= alive[s][1] for i, s in reads)


def test_proposals_and_refusals() -> None:
    plain = _as_profile(_step(5))
    proposals = list(BlockCheckpointing.propose(plain))
    assert [len(p.blocks) for p in proposals] == [1, 2, 4, 5]
    assert proposals[1].blocks == ("b.0", "b.1")
    assert all(p.refuse(plain) == "" for p in proposals)
    assert proposals[0].fidelity(plain) is Fidelity.EXACT
    assert BlockCheckpointing.slot is Slot.REMAT
    assert proposals[1].describe() == "checkpoint 2 blocks"
    again = proposals[0].predict(plain)
    assert "already" in proposals[1].refuse(again)
    assert "no repeated block" in BlockCheckpointing(blocks=("x",)).refuse(plain)
    without = _as_profile(dataclasses.replace(plain.trace, blocks=()))
    assert list(BlockCheckpointing.propose(without)) == []
    assert proposals[0].refuse(without)
    with pytest.raises(InputError):
        BlockCheckpointing.with_count(plain, 6)
    assert BlockCheckpointing.from_options(proposals[1].options()) == proposals[1]


def test_the_first_blocks_are_never_a_worse_choice() -> None:
    case = NAMED["gpt2"]
    plain = _profiled(case, case.build())
    first = BlockCheckpointing.with_count(plain, 2)
    paths = list(BlockCheckpointing.propose(plain))[-1].blocks
    for chosen in [(paths[0], paths[2]), (paths[1], paths[3]), paths[2:]]:
        other = BlockCheckpointing(blocks=chosen)
        assert first.predict(plain).peak <= other.predict(plain).peak
