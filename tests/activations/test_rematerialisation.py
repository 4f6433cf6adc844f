"""What is computed again in backward changes no bit, and takes the memory that is predicted."""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import cast

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from shoestring.activations.chunked_loss import ChunkedLoss
from shoestring.activations.remat.eager.sites import Site, sites_of, to_text
from shoestring.activations.remat.eager.step_graph import step_graph
from shoestring.activations.rematerialisation import Rematerialisation
from shoestring.core.errors import InputError, NoEffectWarning, RefusedError
from shoestring.core.profile import Profile
from shoestring.core.trace import Phase
from shoestring.measure.tracing.allocator import measure_step, standing
from shoestring.measure.tracing.fake import Batch
from shoestring.measure.tracing.step import Loss, StepOptions, forward_loss, plain_step
from shoestring.planner.profiling import profile
from tests.zoo import ZOO, Case

pytestmark = pytest.mark.filterwarnings(
    "ignore:the model returns no loss:shoestring.core.errors.AssumptionWarning"
)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def everything(prof: Profile) -> Rematerialisation:
    """Run again whatever may run again."""
    step, sites = step_graph(prof.trace, prof.machine), sites_of(prof.trace)
    nodes = zip(step.graph.nodes, step.ops, strict=False)
    again = [sites[index] for node, ops in nodes if node.repeatable for index in ops]
    return Rematerialisation(again=to_text(again))


def train(model: nn.Module, batch: Batch, loss: Loss | None = None) -> list[torch.Tensor]:
    """Two steps, so that what the first one leaves behind shows; return all that came of them."""
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002  # wav2vec2 masks by numpy's global numbers
    random.seed(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    found = []
    for _ in range(2):
        optimizer.zero_grad()
        value, _ = forward_loss(model, batch, StepOptions(loss=loss))
        value.backward()
        found += [
            value.detach(),
            *(p.grad.clone() for p in model.parameters() if p.grad is not None),
        ]
        optimizer.step()
    return [*found, *model.parameters(), *model.buffers(), torch.get_rng_state()]


def same(ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor]) -> bool:
    """Whether all tensors are equal to the last bit."""
    assert len(ours) == len(theirs)
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def assert_exact(
    model: nn.Module, batch: Batch, run: Callable[[nn.Module], list[torch.Tensor]] | None = None
) -> None:
    """Compare with everything computed again."""
    plain = copy.deepcopy(model)
    technique = everything(profile(model, batch))
    assert technique.sites()
    technique.apply(model)
    run = run or (lambda changed: train(changed, batch))
    assert same(run(model), run(plain))


# --- the zoo -------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ZOO, ids=lambda case: case.name)
def test_exact_and_as_large_as_predicted_on_the_zoo(case: Case) -> None:
    batch = case.batch(case.rows[0])
    plain = case.build()
    prof = profile(plain, batch, loss=case.loss)
    changed = copy.deepcopy(plain)
    everything(prof).apply(changed)
    expected = train(plain, batch, case.loss)
    assert same(train(changed, batch, case.loss), expected)
    choices = list(Rematerialisation.propose(prof))
    if not choices:
        assert case.name in ("tabular", "seq2seq"), "the gradients alone are most of its step"
        return
    middle = choices[len(choices) // 2]
    predicted = middle.predict(prof)
    assert predicted.peak < prof.peak
    model = case.build()
    middle.apply(model)
    step = functools.partial(plain_step, model, batch, None, StepOptions(loss=case.loss))
    step()
    found = measure_step(step, roots=lambda: standing(model, batch))
    assert predicted.peak == pytest.approx(found.peak, rel=0.005)


# --- what a forward may do -------------------------------------------------------------------


class Residual(nn.Module):
    """A residual block with dropout and a normalisation."""

    def __init__(self, norm: str = "layer", width: int = 48) -> None:
        super().__init__()
        kinds = {"layer": nn.LayerNorm, "batch": nn.BatchNorm1d}
        self.norm = kinds[norm](width)
        self.linear, self.drop = nn.Linear(width, width), nn.Dropout(0.3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.drop(F.gelu(self.linear(self.norm(x))))


def stack(norm: str = "layer", depth: int = 2) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*(Residual(norm) for _ in range(depth)), nn.Linear(48, 8))


def rows() -> torch.Tensor:
    return torch.randn(96, 48, generator=torch.Generator().manual_seed(3))


class InPlace(nn.Module):
    """Changes results in place: wholly, in part, through views, and what is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(48, 96), nn.Linear(48, 48)
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.steps += 1
        wide = self.first(x).relu_()
        left, right = wide.unsafe_chunk(2, 1)
        kept = left * 2
        left.add_(right).sigmoid_()
        made = torch.zeros_like(x)
        made[:, ::2] = left[:, ::2]
        made[:40].mul_(3.0)
        noise = torch.empty_like(x).bernoulli_(0.5).div_(0.5)
        scaled = (made * noise).add_(kept) * self.steps
        return self.second(scaled.exp_()).squeeze_()


class Structured(nn.Module):
    """Takes and returns containers, and uses a weight twice."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(48, 48, bias=False), nn.Linear(48, 48, bias=False)
        self.b.weight = self.a.weight

    def forward(
        self, pair: tuple[torch.Tensor, list[torch.Tensor]] | torch.Tensor
    ) -> dict[str, torch.Tensor | list[torch.Tensor]]:
        first, (second,) = (pair, [pair * 2]) if isinstance(pair, torch.Tensor) else pair
        mixed = torch.cat([self.a(first).tanh(), self.b(second).sin()], 1)
        return {"loss": mixed.square().mean(), "parts": [mixed[:, :3]]}


@pytest.mark.parametrize("norm", ["batch", "layer"])
@pytest.mark.parametrize("training", [True, False])
def test_exact_with_dropout_and_running_statistics(norm: str, training: bool) -> None:
    assert_exact(stack(norm).train(training), rows())


def test_exact_with_changes_in_place() -> None:
    assert_exact(InPlace(), rows())


def test_exact_with_containers_and_tied_weights() -> None:
    assert_exact(Structured(), rows())


def test_exact_with_several_forwards_before_one_backward() -> None:
    def run(model: nn.Module) -> list[torch.Tensor]:
        torch.manual_seed(1)
        (model(rows()).sum() + model(rows()[:50] * 2).square().sum()).backward()
        return [*gradients(model), *model.buffers(), torch.get_rng_state()]

    assert_exact(stack("batch"), rows(), run)


def test_exact_with_two_backwards_through_one_forward() -> None:
    def run(model: nn.Module) -> list[torch.Tensor]:
        torch.manual_seed(1)
        loss = model(rows()).square().sum()
        loss.backward(retain_graph=True)
        loss.backward()
        return gradients(model)

    assert_exact(stack(), rows(), run)


def test_exact_with_gradients_of_gradients() -> None:
    def run(model: nn.Module) -> list[torch.Tensor]:
        torch.manual_seed(1)
        loss = model(rows()).square().sum()
        first = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
        sum(g.square().sum() for g in first).backward()
        return gradients(model)

    assert_exact(stack(), rows(), run)


def test_exact_under_autocast() -> None:
    def run(model: nn.Module) -> list[torch.Tensor]:
        torch.manual_seed(1)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(rows()).float().square().sum()
        loss.backward()
        return gradients(model)

    model = stack()
    prof = profile(model, rows(), autocast=torch.bfloat16)
    plain = copy.deepcopy(model)
    everything(prof).apply(model)
    assert same(run(model), run(plain))


def test_exact_with_batches_of_other_sizes() -> None:
    def run(model: nn.Module) -> list[torch.Tensor]:
        torch.manual_seed(1)
        for count in (96, 17, 64, 1):
            model(rows()[:count]).square().sum().backward()
        return [*gradients(model), torch.get_rng_state()]

    assert_exact(stack(), rows(), run)


class Deciding(nn.Module):
    """Runs other operations for other data."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(48, 48) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x).tanh() if x.mean() > 0 else torch.cos(layer(x) * 2).exp()
        return x


def test_exact_where_the_data_decide_what_runs() -> None:
    def run(model: nn.Module) -> list[torch.Tensor]:
        for sign in (1, -1):
            model(rows() + sign).square().sum().backward()
        return gradients(model)

    torch.manual_seed(0)
    assert_exact(Deciding(), rows() + 1, run)


class Drawing(nn.Module):
    """Draws from a generator of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.generator = nn.Linear(48, 48), torch.Generator().manual_seed(5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        noise = torch.empty_like(x).bernoulli_(0.5, generator=self.generator)
        return self.linear(x).exp() * noise


def test_what_a_generator_of_ones_own_drew_is_kept() -> None:
    models = []
    for again in ((), (Site("", "aten.empty_like.default", 0), Site("", "aten.exp.default", 0))):
        torch.manual_seed(0)
        model = Drawing()
        if again:
            Rematerialisation(again=to_text(again)).apply(model)
        model(rows()).square().sum().backward()
        models.append([*gradients(model), model.generator.get_state()])
    assert same(*models)


def gradients(model: nn.Module) -> list[torch.Tensor]:
    return [p.grad for p in model.parameters() if p.grad is not None]


# --- what is predicted -----------------------------------------------------------------------


@pytest.mark.parametrize("model", [stack("batch"), InPlace()], ids=["stack", "in place"])
def test_the_predicted_step_is_the_traced_one(model: nn.Module) -> None:
    prof = profile(model, rows())
    step, sites = step_graph(prof.trace, prof.machine), sites_of(prof.trace)
    nodes = [(n, ops) for n, ops in zip(step.graph.nodes, step.ops, strict=False) if n.repeatable]
    for start in range(3):
        again = to_text(sites[i] for _, ops in nodes[start:] for i in ops)
        technique = Rematerialisation(again=again)
        changed = copy.deepcopy(model)
        technique.apply(changed)
        traced, predicted = profile(changed, rows()), technique.predict(prof)
        ran = [(op.name, op.phase) for op in traced.trace.ops]
        assert ran == [(op.name, op.phase) for op in predicted.trace.ops]
        assert (traced.trace.timeline() == predicted.trace.timeline()).all()
        assert traced.step.recomputes == any(phase is Phase.RECOMPUTE for _, phase in ran)
        assert start or traced.step.recomputes


def test_choices_go_from_cheap_to_small() -> None:
    prof = profile(stack(depth=6), rows())
    predicted = [t.predict(prof) for t in Rematerialisation.propose(prof)]
    found = [(after.seconds, after.peak) for after in predicted]
    assert len(found) >= 3
    assert [seconds for seconds, _ in found] == sorted(seconds for seconds, _ in found)
    assert [peak for _, peak in found] == sorted((peak for _, peak in found), reverse=True)
    assert found[-1][1] < 0.6 * prof.peak


def test_the_predicted_step_names_what_runs_again() -> None:
    prof = profile(stack(), rows())
    technique = Rematerialisation(again=("0.linear: aten.addmm.default 0",))
    trace = technique.predict(prof).trace
    again = [op.name for op in trace.ops if op.phase is Phase.RECOMPUTE]
    assert again == ["aten.addmm.default"]
    assert technique.describe() == "recompute 1 operation"


# --- what is refused -------------------------------------------------------------------------


def test_it_is_refused_where_it_would_do_nothing() -> None:
    prof = profile(stack(), rows())
    other = Rematerialisation(again=("7: aten.exp.default 0",))
    assert "none of the operations" in other.refuse(prof)
    again = Rematerialisation(again=("0: aten.gelu.default 0",))
    assert again.refuse(prof) == ""
    assert "already" in again.refuse(again.predict(prof))
    assert not list(Rematerialisation.propose(again.predict(prof)))
    alone = dataclasses.replace(prof.trace, calls=())
    without = dataclasses.replace(prof, traces=(alone,))
    assert "does not call the model" in again.refuse(without)


@pytest.mark.parametrize("line", ["", "0", "0: ", "0: aten.exp.default", "0: aten.exp.default x"])
def test_a_line_that_names_nothing_is_refused(line: str) -> None:
    with pytest.raises(InputError, match="names no operations"):
        Rematerialisation.from_options({"again": [line]})


def test_a_forward_without_the_operations_is_warned_of_once() -> None:
    model = stack()
    Rematerialisation(again=("9: aten.exp.default 0",)).apply(model)
    with pytest.warns(NoEffectWarning, match="ran none of the operations"):
        model(rows())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(rows())


def test_a_weight_that_is_changed_before_backward_is_an_error_as_without_it() -> None:
    model = stack()
    everything(profile(model, rows())).apply(model)
    loss = model(rows()).square().sum()
    with torch.no_grad():
        cast("Residual", model[0]).linear.weight.add_(1.0)
    with pytest.raises(RuntimeError, match="modified"):
        loss.backward()


# --- the model stays what it was -------------------------------------------------------------


def test_apply_and_remove_leave_the_model_as_it_was() -> None:
    model = stack()
    keys, own = list(model.state_dict()), dict(vars(model))
    signature = inspect.signature(model.forward)
    technique = Rematerialisation(again=("0: aten.gelu.default 0",))
    technique.apply(model)
    assert inspect.signature(model.forward) == signature
    assert list(model.state_dict()) == keys
    with pytest.raises(RefusedError, match="already"):
        technique.apply(model)
    technique.remove(model)
    assert vars(model) == own
    with pytest.raises(RefusedError, match="keeps all"):
        technique.remove(model)


def test_a_forward_of_the_instance_comes_back() -> None:
    model = stack()
    model.forward = functools.partial(model.forward)
    with pytest.raises(RefusedError, match="was replaced"):
        Rematerialisation(again=("0: aten.gelu.default 0",)).apply(model)


def test_a_copy_works_by_itself() -> None:
    model = stack()
    Rematerialisation(again=("0: aten.gelu.default 0",)).apply(model)
    other = copy.deepcopy(model)
    other[0].linear.weight.data.zero_()
    assert not torch.equal(other.eval()(rows()), model.eval()(rows()))
    Rematerialisation(again=()).remove(other)
    assert "forward" in vars(model)
    assert "forward" not in vars(other)


def test_without_gradients_nothing_is_recorded() -> None:
    model = stack().eval()
    expected = model(rows())
    everything(profile(stack(), rows())).apply(model)
    with torch.no_grad():
        assert torch.equal(model(rows()), expected)
    with torch.inference_mode():
        assert torch.equal(model(rows()), expected)


def test_what_is_kept_for_backward_goes_with_it() -> None:
    model = stack()
    everything(profile(model, rows())).apply(model)
    loss = model(rows()).square().sum()
    loss.backward()
    before = sum(t.nbytes for t in tensors_alive())
    del loss
    assert sum(t.nbytes for t in tensors_alive()) <= before


def tensors_alive() -> list[torch.Tensor]:
    import gc

    return [o for o in gc.get_objects() if type(o) is torch.Tensor]


def test_predicted_beside_a_head_in_chunks() -> None:
    """The head's part of the forward runs in backward, and reads what is computed again."""
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=2000,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
    )
    model = transformers.LlamaForCausalLM(config).train()
    words = torch.arange(8 * 32).reshape(8, 32)
    batch = {"input_ids": words, "labels": words}
    plain = profile(model, batch)
    (chunked,) = ChunkedLoss.propose(plain)
    without = chunked.predict(plain)
    for again in (everything(without), *Rematerialisation.propose(without)):
        predicted = again.predict(without)
        changed = copy.deepcopy(model)
        chunked.apply(changed)
        again.apply(changed)

        def step(changed: nn.Module = changed) -> None:
            changed.zero_grad()
            changed(**batch).loss.backward()

        step()
        found = measure_step(step, roots=lambda changed=changed: standing(changed, batch))
        assert found.peak == pytest.approx(predicted.peak, rel=1e-3)
