"""Micro-batches add up to the batch, or say why they do not."""

from __future__ import annotations

import copy
import dataclasses

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import nn

from shoestring.activations.micro_batches import (
    WEIGHTINGS,
    MicroBatches,
    couplings,
    find_weighting,
)
from shoestring.core.errors import InputError, RefusedError
from shoestring.core.fidelity import Fidelity
from shoestring.core.technique import Slot
from shoestring.core.trace import ALWAYS, Kind, Phase
from shoestring.measure.tracing.allocator import measure_step, standing
from shoestring.measure.tracing.step import StepOptions, forward_loss
from shoestring.planner.batches import with_row_sizes
from shoestring.planner.profiling import profile
from tests.oracles.micro_batches import gradients_in_parts
from tests.zoo import ZOO, Case

NAMED = {case.name: case for case in ZOO}
WEIGHTING_OF = {
    **dict.fromkeys(("bert", "distilbert", "deberta", "vit", "swin", "convnext"), "rows"),
    **dict.fromkeys(("diffusion", "mixer", "fno", "lstm"), "rows"),
    **dict.fromkeys(
        ("gpt2", "opt", "llama", "mistral", "qwen", "gemma", "mamba"), "shifted-labels"
    ),
    **dict.fromkeys(("t5", "bart", "whisper"), "labels"),
}
"""The others are refused: batch normalisation, router and contrastive losses, a loss that is a
sum or is weighted by something else than labels, rows that are no samples (the graph)."""


class _Tagger(nn.Module):
    """Returns a mean over labels that are not ignored, shifted or not."""

    def __init__(self, *, shifted: bool = False, width: int = 4) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(9, width), nn.Linear(width, 5)
        self.shifted = shifted

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.head(self.embed(input_ids))
        if self.shifted:
            logits, labels = logits[:, :-1], labels[:, 1:]
        return {"loss": nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())}


def _labelled(rows: int, length: int, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 9, (rows, length), generator=generator)
    labels = torch.randint(0, 5, (rows, length), generator=generator)
    labels[torch.rand(rows, length, generator=generator) < 0.4] = -100
    labels[0, 0] = labels[0, -1] = 1
    return {"input_ids": tokens, "labels": labels}


def _summed(model: nn.Module, technique: MicroBatches, batch: object) -> list[torch.Tensor]:
    model.zero_grad()
    for part, weight in technique.split(batch):
        (weight * forward_loss(model, part, StepOptions())[0]).backward()
    return [p.grad for p in model.parameters()]


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(2, 7),
    length=st.integers(1, 5),
    parts=st.integers(2, 4),
    seed=st.integers(0, 9),
)
def test_gradients_equal_the_oracle(rows: int, length: int, parts: int, seed: int) -> None:
    parts = min(parts, rows)
    model, batch = _Tagger().double(), _labelled(rows, length, seed)
    sizes = [rows // parts + (i < rows % parts) for i in range(parts)]
    technique = MicroBatches(parts=parts, weight_by="labels")

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.model.head(self.model.embed(tokens))

    expected = gradients_in_parts(Logits(), batch["input_ids"], batch["labels"], sizes)
    largest = max(float(g.abs().max()) for g in expected)
    for ours, theirs in zip(_summed(model, technique, batch), expected, strict=True):
        assert float((ours - theirs).abs().max()) <= 1e-12 * largest


@pytest.mark.parametrize(("shifted", "weight_by"), [(False, "labels"), (True, "shifted-labels")])
def test_only_the_right_weighting_is_exact(shifted: bool, weight_by: str) -> None:
    model, batch = _Tagger(shifted=shifted).double(), _labelled(5, 6)
    model(**batch)["loss"].backward()
    whole = [p.grad.clone() for p in model.parameters()]
    largest = max(float(g.abs().max()) for g in whole)
    for weighting in WEIGHTINGS:
        summed = _summed(model, MicroBatches(parts=2, weight_by=weighting), batch)
        error = max(float((a - b).abs().max()) for a, b in zip(summed, whole, strict=True))
        assert (error <= 1e-12 * largest) == (weighting == weight_by)
    assert find_weighting(model, batch) == weight_by


def test_a_part_without_labels_is_left_out() -> None:
    batch = _labelled(4, 3)
    batch["labels"][2:] = -100
    parts = list(MicroBatches(parts=2, weight_by="labels").split(batch))
    assert [(len(part["labels"]), weight) for part, weight in parts] == [(2, 1.0)]
    batch["labels"][:] = -100
    with pytest.raises(InputError, match="no row"):
        list(MicroBatches(parts=2, weight_by="labels").split(batch))


def test_batches_are_split_whatever_holds_their_tensors() -> None:
    x, table, flag = torch.arange(10.0).view(5, 2), torch.zeros(3, 2), torch.tensor(1.0)
    for batch in (x, (x, x * 2), {"x": x, "y": x * 2, "table": table, "flag": flag}):
        parts = list(MicroBatches(parts=3).split(batch))
        assert sum(weight for _, weight in parts) == pytest.approx(1.0, abs=1e-15)
        assert all(type(part) is type(batch) for part, _ in parts)
        first = [part if isinstance(part, torch.Tensor) else part["x"] if isinstance(part, dict)
                 else part[0] for part, _ in parts]  # fmt: skip
        assert torch.equal(torch.cat(first), x)
        assert [len(part) for part in first] == [2, 2, 1]
    assert all(part["table"] is table for part, _ in parts)


def test_bad_batches_and_options() -> None:
    with pytest.raises(InputError, match="2 rows cannot be split into 3"):
        list(MicroBatches(parts=3).split(torch.zeros(2, 2)))
    with pytest.raises(InputError, match="without labels"):
        list(MicroBatches(parts=2, weight_by="labels").split(torch.zeros(2, 2)))
    with pytest.raises(InputError, match="no tensor with rows"):
        list(MicroBatches(parts=2).split(torch.tensor(1.0)))
    with pytest.raises(InputError, match="of no use"):
        MicroBatches.from_options({"parts": 1, "weight_by": "rows"})
    with pytest.raises(InputError, match="no weighting"):
        MicroBatches.from_options({"parts": 2, "weight_by": "luck"})


# --- which weighting ---------------------------------------------------------------------


@pytest.mark.parametrize("case", ZOO, ids=lambda case: case.name)
def test_the_weighting_of_the_zoo_is_found_or_refused(case: Case) -> None:
    model, batch = case.build(), case.batch(max(4, case.rows[0]))
    before = {name: t.clone() for name, t in model.state_dict().items()}
    state = torch.get_rng_state()
    if case.name in WEIGHTING_OF:
        assert find_weighting(model, batch, case.loss) == WEIGHTING_OF[case.name]
    else:
        with pytest.raises(RefusedError):
            find_weighting(model, batch, case.loss)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert model.training


@pytest.mark.parametrize("case", ZOO, ids=lambda case: case.name)
def test_what_couples_samples_is_seen_or_found_by_computing(case: Case) -> None:
    """Whatever `couplings` names is refused by the computation too; it never cries wolf."""
    if couplings(case.build()):
        assert case.name not in WEIGHTING_OF


def test_couplings() -> None:
    norm = nn.BatchNorm1d(4)
    assert couplings(nn.Sequential(norm)) == ("0: normalises with statistics of the batch",)
    assert couplings(nn.Sequential(norm.eval())) == ()
    assert couplings(nn.BatchNorm1d(4, track_running_stats=False).eval()) != ()
    assert couplings(nn.Sequential(nn.GroupNorm(2, 4), nn.InstanceNorm1d(4))) == ()
    assert "routers" in couplings(NAMED["mixtral"].build())[0]
    assert "contrasts" in couplings(NAMED["clip"].build())[0]


class _Mixing(nn.Module):
    """Couples samples in a way no class name tells."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x - x.mean(0)).square().mean()


def test_unknown_couplings_and_sums_are_refused_by_computing() -> None:
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    assert couplings(_Mixing()) == ()
    with pytest.raises(RefusedError, match="do not add up"):
        find_weighting(_Mixing(), x)
    with pytest.raises(RefusedError, match="do not add up"):
        find_weighting(nn.Linear(3, 1), x, lambda y, _: y.square().sum())
    assert find_weighting(nn.Linear(3, 1), x, lambda y, _: y.square().mean()) == "rows"
    with pytest.raises(InputError, match="one row"):
        find_weighting(nn.Linear(3, 1), x[:1])
    with pytest.raises(RefusedError, match="no data"):
        find_weighting(nn.Linear(3, 1, device="meta"), x)


def test_dropout_does_not_hide_the_weighting() -> None:
    model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.LSTM(8, 4, 2, dropout=0.5))
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    with pytest.raises(RefusedError):  # an unbatched LSTM runs over the rows
        find_weighting(model, x, lambda y, _: y[0].square().mean())
    assert find_weighting(model[:2], x, lambda y, _: y.square().mean()) == "rows"


# --- what it costs -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_predicted_against_measured(name: str) -> None:
    case = NAMED[name]
    model, batch = case.build(), case.batch(case.rows[1])
    plain = profile(model, batch, optimizer=torch.optim.AdamW, loss=case.loss)
    technique = MicroBatches(parts=4, weight_by=find_weighting(model, batch))
    sized = with_row_sizes(plain)
    assert "not known" in technique.refuse(plain)
    assert technique.refuse(sized) == ""
    predicted = technique.predict(sized)
    optimizer = torch.optim.AdamW(model.parameters())

    def step() -> None:
        optimizer.zero_grad()
        for part, weight in technique.split(batch):
            (forward_loss(model, part, StepOptions())[0] * weight).backward()
        optimizer.step()

    step()
    measured = measure_step(step, roots=lambda: standing(model, batch, optimizer)).peak
    assert predicted.peak < 0.8 * plain.peak
    assert predicted.peak == pytest.approx(measured, rel=0.05)
    assert predicted.step.accumulate == 4
    assert predicted.flops == pytest.approx(plain.flops, rel=0.01)
    assert plain.seconds < predicted.seconds < 4 * plain.seconds
    assert technique.fidelity(plain) is Fidelity.SAME_DISTRIBUTION


def test_gradients_stay_and_fresh_ones_go_at_once() -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64))
    plain = with_row_sizes(
        profile(model, torch.zeros(8, 64), optimizer=torch.optim.SGD, loss=lambda y, x: y.mean())
    )
    technique = MicroBatches(parts=2)
    trace = technique.predict(plain).trace
    gradients = [s for s in trace.storages if s.kind is Kind.GRADIENT]
    stay = [s for s in gradients if s.birth == ALWAYS and s.death is None]
    fresh = [s for s in gradients if s.birth != ALWAYS]
    assert len(stay) == len(fresh) == 4
    update = next(i for i, op in enumerate(trace.ops) if op.phase is Phase.OPTIMIZER)
    assert all(s.death is not None and s.death < update - 1 for s in fresh)
    read = {s for op in trace.ops if op.phase is Phase.OPTIMIZER for s in op.reads}
    assert {trace.storages.index(s) for s in fresh}.isdisjoint(read)
    assert technique.fidelity(plain) is Fidelity.EXACT
    assert trace.rows == 4


def test_proposals_and_refusals() -> None:
    model = nn.Linear(4, 4)
    plain = with_row_sizes(profile(model, torch.zeros(6, 4), loss=lambda y, x: y.mean()))
    assert [t.parts for t in MicroBatches.propose(plain)] == [2, 4, 6]
    assert all(t.refuse(plain) == "" for t in MicroBatches.propose(plain))
    assert "6 rows" in MicroBatches(parts=7).refuse(plain)
    mixing = dataclasses.replace(plain, step=dataclasses.replace(plain.step, couplings=("a", "b")))
    assert "a and 1 more" in MicroBatches(parts=2).refuse(mixing)
    custom = dataclasses.replace(plain, step=dataclasses.replace(plain.step, custom=True))
    assert "own function" in MicroBatches(parts=2).refuse(custom)
    assert MicroBatches.slot is Slot.PARALLEL
    technique = MicroBatches(parts=2, weight_by="shifted-labels")
    assert technique.describe() == "2 micro-batches weighted by shifted labels"
    assert MicroBatches.from_options(technique.options()) == technique
    assert copy.deepcopy(technique) == technique
