"""Every technique on every model of the zoo: exact gradients, and predictions that hold.

All that a step admits is applied at once, at its strongest, so each model is run twice. What
cannot be used on a model must say so, and the number of models that use each is counted.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from shoestring.core.profile import Profile
from shoestring.core.technique import Slot, Technique
from shoestring.measure.tracing.allocator import measure_step, standing
from shoestring.measure.tracing.fake import map_tensors
from shoestring.measure.tracing.step import StepOptions, forward_loss
from shoestring.planner.profiling import profile
from shoestring.planner.search import predict
from shoestring.planner.techniques import technique_classes
from tests.zoo import ZOO, Case

pytest.importorskip("transformers")

# Some outputs carry no loss: said, and meant.
pytestmark = pytest.mark.filterwarnings("ignore::shoestring.core.errors.AssumptionWarning")

UNTOUCHED = {"tabular"}
"""Models in whose step nothing is worth computing again, and no logits are large."""


@pytest.fixture(params=ZOO, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def admitted(prof: Profile) -> list[Technique]:
    """Return the exact techniques that act on model or step, each at its strongest."""
    found: list[Technique] = []
    for cls in technique_classes():
        if cls.reported or cls.slot is Slot.PARALLEL:
            continue
        usable = [t for t in cls.propose(prof) if not t.refuse(prof)]
        found += usable[-1:]
    return found


def together(techniques: list[Technique]) -> tuple[Technique, ...]:
    """Return techniques that go together: one for the optimizer's step."""
    steps = [t for t in techniques if t.slot is Slot.STEP]
    return tuple(t for t in techniques if t.slot is not Slot.STEP or t is steps[-1])


def run(
    model: nn.Module, batch: object, case: Case
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - what some models of transformers draw from
    loss, _ = forward_loss(model, batch, StepOptions(loss=case.loss))
    loss.backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    for parameter in model.parameters():
        parameter.grad = None
    return loss.detach(), gradients


@pytest.mark.timeout(600)
def test_gradients_buffers_and_random_numbers_are_exact(case: Case) -> None:
    plain, changed = case.build().double(), case.build().double()
    batch = map_tensors(
        case.batch(case.rows[0]), lambda t: t.double() if t.is_floating_point() else t
    )
    prof = profile(plain, batch, optimizer=torch.optim.AdamW, loss=case.loss)
    techniques = [t for t in admitted(prof) if t.slot is not Slot.STEP]
    if not techniques:
        assert case.name in UNTOUCHED
        return
    for technique in techniques:
        technique.apply(changed)
    for _ in range(2):
        expected, gradients = run(plain, batch, case)
        state = torch.get_rng_state()
        loss, same = run(changed, batch, case)
        assert torch.equal(torch.get_rng_state(), state)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
        assert same.keys() == gradients.keys()
        most = max(g.abs().max() for g in gradients.values())
        for name, gradient in gradients.items():
            assert (same[name] - gradient).abs().max() <= 1e-12 * most, name
        for name, buffer in plain.named_buffers():
            assert torch.equal(dict(changed.named_buffers())[name], buffer), name


def measured(model: nn.Module, batch: object, case: Case, chosen: tuple[Technique, ...]) -> int:
    for technique in chosen:
        technique.apply(model)
    optimizer: torch.optim.Optimizer = torch.optim.AdamW(model.parameters())
    for technique in chosen:
        optimizer = technique.make_optimizer(optimizer)

    def step() -> None:
        for parameter in model.parameters():
            parameter.grad = None
        loss, _ = forward_loss(model, batch, StepOptions(loss=case.loss))
        loss.backward()
        del loss
        optimizer.step()

    step()  # the optimizer makes its state
    return measure_step(step, roots=lambda: standing(model, batch, optimizer)).peak


@pytest.mark.timeout(600)
def test_the_predicted_peak_of_all_techniques_together_holds(case: Case) -> None:
    model, batch = case.build(), case.batch(case.rows[1])
    prof = profile(model, batch, optimizer=torch.optim.AdamW, loss=case.loss)
    chosen = together(admitted(prof))
    predicted = predict(chosen, prof)
    assert predicted is not None
    peak = measured(model, batch, case, chosen)
    assert predicted.peak == pytest.approx(peak, rel=0.05), [t.describe() for t in chosen]


PAIRED = [case for case in ZOO if case.name in ("gpt2", "resnet")]


@pytest.mark.parametrize("paired", PAIRED, ids=lambda case: case.name)
@pytest.mark.timeout(600)
def test_the_predicted_peak_of_each_technique_and_of_each_pair_holds(paired: Case) -> None:
    batch = paired.batch(paired.rows[1])
    prof = profile(paired.build(), batch, optimizer=torch.optim.AdamW, loss=paired.loss)
    usable = admitted(prof)
    pairs = [p for p in itertools.combinations(usable, 2) if len({t.slot for t in p}) == 2]
    assert len(usable) >= 3
    for chosen in [*((t,) for t in usable), *pairs]:
        predicted = predict(tuple(chosen), prof)
        assert predicted is not None
        peak = measured(paired.build(), batch, paired, tuple(chosen))
        assert predicted.peak == pytest.approx(peak, rel=0.05), [t.describe() for t in chosen]
