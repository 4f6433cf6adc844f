"""What is predicted of a zeroth-order step is what it takes, whatever the optimizer keeps."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

import shoestring
from shoestring.core.budget import Budget
from shoestring.core.errors import InfeasibleError, InputError
from shoestring.core.trace import Kind
from shoestring.measure.tracing.allocator import measure_step, standing
from shoestring.measure.tracing.fake import Batch
from shoestring.measure.tracing.step import StepOptions, forward_loss
from shoestring.planner.reported import ZerothOrder as Reported
from shoestring.zeroth import ZOSGD, SamplingMuon, ZOAdam, ZOMuon, ZOSign
from shoestring.zeroth.engine import ZerothOrder
from tests.planner.test_reported import made
from tests.zoo import ZOO, Case

pytest.importorskip("transformers")

pytestmark = pytest.mark.filterwarnings("ignore::shoestring.core.errors.AssumptionWarning")

KINDS: dict[str, Callable[..., ZerothOrder]] = {
    "ZOSGD": ZOSGD,
    "momentum": functools.partial(ZOSGD, momentum=0.9),
    "gaussian": functools.partial(ZOSGD, directions="gaussian"),
    "several": functools.partial(ZOSGD, q=3, two_sided=False),
    "ZOSign": ZOSign,
    "ZOAdam": ZOAdam,
    "ZOMuon": ZOMuon,
    "SamplingMuon": SamplingMuon,
}
MODELS = ("bert", "gpt2", "resnet")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def case_of(name: str) -> Case:
    return next(case for case in ZOO if case.name == name)


def measured(model: nn.Module, batch: Batch, opt: ZerothOrder, case: Case) -> int:
    def step() -> None:
        opt.step(lambda: forward_loss(model, batch, StepOptions(loss=case.loss))[0])

    step()
    step()
    return measure_step(step, roots=lambda: standing(model, batch, opt)).peak


CASES = [
    *(("bert", kind, torch.float32) for kind in KINDS if kind not in ("ZOSign", "several")),
    ("gpt2", "several", torch.float32),
    ("resnet", "ZOSign", torch.float32),
    ("bert", "ZOSGD", torch.bfloat16),
    ("gpt2", "ZOAdam", torch.bfloat16),
]


@pytest.mark.parametrize(("name", "kind", "dtype"), CASES)
def test_the_predicted_peak_holds(name: str, kind: str, dtype: torch.dtype) -> None:
    case = case_of(name)
    model, batch = made(case, dtype)
    model.eval()
    prof = shoestring.profile(model, batch, optimizer=KINDS[kind], loss=case.loss)
    opt = KINDS[kind](model.parameters())
    assert prof.peak == pytest.approx(measured(model, batch, opt, case), rel=0.05)
    state = [t for kept in opt.state.values() for t in kept.values() if torch.is_tensor(t)]
    kinds = dict.fromkeys(Kind, 0)
    for storage in prof.trace.storages:
        kinds[storage.kind] += storage.nbytes
    assert kinds[Kind.OPTIMIZER] == sum(t.numel() * t.element_size() for t in state)
    assert kinds[Kind.GRADIENT] == 0


class Wide(nn.Module):
    """One matrix whose moves take more than its forward, and a small forward."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(rows, 64)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.embedding(ids).square().mean()


@pytest.mark.parametrize("kind", ["ZOAdam", "SamplingMuon"])
@pytest.mark.parametrize("rows", [4000, 80_000])
def test_the_moves_can_bind(kind: str, rows: int) -> None:
    """Also of a parameter so large that only a part of it is moved to measure."""
    model, ids = Wide(rows), torch.arange(8)
    prof = shoestring.profile(model, ids, optimizer=KINDS[kind])
    assert prof.timeline[-1]["bytes"] == prof.peak
    opt = KINDS[kind](model.parameters())

    def step() -> None:
        opt.step(lambda: model(ids))

    step()
    peak = measure_step(step, roots=lambda: standing(model, ids, opt)).peak
    assert prof.peak == pytest.approx(peak, rel=0.05)


def test_evaluations_are_counted_by_running_the_optimizer() -> None:
    case = case_of("bert")
    model, batch = made(case)
    forward = shoestring.profile(model.eval(), batch, optimizer=ZOSGD, loss=case.loss).flops / 2

    def passes(optimizer: object, accumulate: int = 1) -> float:
        prof = shoestring.profile(
            model, batch, optimizer=optimizer, loss=case.loss, accumulate=accumulate
        )
        return prof.flops / forward

    assert passes(functools.partial(ZOSGD, q=3)) == 6
    assert passes(functools.partial(ZOSGD, q=3, two_sided=False)) == 4
    assert passes(ZOAdam(model.parameters(), q=2)) == 4
    assert passes(ZOSGD, accumulate=3) == 6


def test_the_time_is_that_of_its_passes() -> None:
    case = case_of("bert")
    model, batch = made(case)
    one, three = (
        shoestring.profile(
            model.eval(), batch, optimizer=functools.partial(ZOSGD, q=q), loss=case.loss
        ).seconds
        for q in (1, 3)
    )
    assert 2.2 < three / one < 3


def test_what_means_nothing_without_gradients_is_refused() -> None:
    model, batch = nn.Linear(4, 4), torch.zeros(2, 4)
    for option in ({"clip_norm": 1.0}, {"set_to_none": False}, {"ddp": "views"}):
        with pytest.raises(InputError, match=f"{next(iter(option))}= would have no effect"):
            shoestring.profile(model, batch, optimizer=ZOSGD, **option)
    prof = shoestring.profile(model, batch, optimizer=ZOSGD)
    with pytest.raises(InputError, match="have no effect"):
        shoestring.plan(prof, Budget(memory="1GiB"), allow="micro-batches")


def test_a_plan_of_it_is_the_step_itself(tmp_path: object) -> None:
    case = case_of("bert")
    model, batch = made(case)
    prof = shoestring.profile(model.eval(), batch, optimizer=ZOSGD, loss=case.loss)
    plan = shoestring.plan(prof, Budget(memory="1GiB"))
    assert plan.steps == ()
    assert plan.rows[0].fidelity == "unbiased"
    again = shoestring.Plan.load(saved(plan, tmp_path))
    before = [p.detach().clone() for p in model.parameters()]
    check = again.verify(model, batch, loss=case.loss)
    assert abs(check.error) < 0.05
    assert all(map(torch.equal, before, model.parameters()))
    with pytest.raises(InfeasibleError, match="least reachable"):
        shoestring.plan(prof, Budget(memory=prof.peak - 1))


def saved(plan: shoestring.Plan, folder: object) -> str:
    path = f"{folder}/plan.json"
    plan.save(path)
    return path


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_reported_line_is_that_of_the_optimizer(dtype: torch.dtype) -> None:
    case = case_of("bert")
    model, batch = made(case, dtype)
    model.eval()
    plain = shoestring.profile(model, batch, optimizer=torch.optim.AdamW, loss=case.loss)
    own = shoestring.profile(model, batch, optimizer=ZOSGD, loss=case.loss)
    assert Reported().predict(plain).peak == pytest.approx(own.peak, rel=0.01)
    assert Reported().predict(plain).seconds == pytest.approx(own.seconds, rel=0.01)
