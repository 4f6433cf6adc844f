"""What is only reported is held to a measurement too: peft, bitsandbytes and plain torch run it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from shoestring.core.profile import Profile
from shoestring.core.technique import Slot, Technique
from shoestring.measure.tracing.allocator import measure_step, standing
from shoestring.measure.tracing.fake import map_tensors
from shoestring.measure.tracing.step import StepOptions, forward_loss, plain_step
from shoestring.planner.profiling import profile
from shoestring.planner.reported import Adam8bit, Bfloat16Autocast, Lora, Nf4Base, ZerothOrder
from shoestring.planner.techniques import technique_classes
from tests.zoo import ZOO, Case, adapted

pytest.importorskip("transformers")

pytestmark = [
    pytest.mark.filterwarnings("ignore::shoestring.core.errors.AssumptionWarning"),
    # Those of peft and bitsandbytes are not ours.
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

ADAPTED = ("bert", "gpt2", "llama", "mixtral", "t5", "clip", "swin", "mixer", "tabular")
QUANTISED = ("bert", "llama", "t5", "vit", "tabular")  # bitsandbytes knows no Conv1D
SEVERAL = ("bert", "gpt2", "mamba", "resnet", "unet", "lstm")
RANK = 16


def named(*names: str) -> pytest.MarkDecorator:
    cases = [case for case in ZOO if case.name in names]
    assert len(cases) == len(names)
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


bases = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def made(case: Case, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, object]:
    batch = map_tensors(
        case.batch(case.rows[1]), lambda t: t.to(dtype) if t.is_floating_point() else t
    )
    return case.build().to(dtype), batch


def profiled(model: nn.Module, batch: object, case: Case) -> Profile:
    return profile(model, batch, optimizer=torch.optim.AdamW, loss=case.loss)


def measured(
    model: nn.Module,
    batch: object,
    optimizer: torch.optim.Optimizer | None,
    step: Callable[[], None],
) -> int:
    step()
    step()
    return measure_step(step, roots=lambda: standing(model, batch, optimizer)).peak


def trained(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


def with_lora(model: nn.Module) -> nn.Module:
    pytest.importorskip("peft")
    return adapted.with_lora(model, RANK)


def in_4_bits(model: nn.Module) -> nn.Module:
    pytest.importorskip("bitsandbytes")
    return adapted.in_4_bits(model)


def step_of(
    model: nn.Module,
    batch: object,
    optimizer: torch.optim.Optimizer,
    case: Case,
    autocast: torch.dtype | None = None,
) -> Callable[[], None]:
    options = StepOptions(loss=case.loss, autocast=autocast)
    return functools.partial(plain_step, model, batch, optimizer, options)


@named(*SEVERAL)
def test_the_predicted_peak_of_bf16_holds(case: Case) -> None:
    model, batch = made(case)
    predicted = Bfloat16Autocast().predict(profiled(model, batch, case))
    optimizer = torch.optim.AdamW(model.parameters())
    step = step_of(model, batch, optimizer, case, torch.bfloat16)
    peak = measured(model, batch, optimizer, step)
    assert predicted.peak == pytest.approx(peak, rel=0.05)


@named(*SEVERAL, "mixtral", "densenet", "gnn")
def test_the_predicted_peak_of_zeroth_order_holds(case: Case) -> None:
    model, batch = made(case)
    predicted = ZerothOrder().predict(profiled(model, batch, case))

    def step() -> None:
        with torch.no_grad():
            for _ in range(2):
                forward_loss(model, batch, StepOptions(loss=case.loss))

    assert predicted.peak == pytest.approx(measured(model, batch, None, step), rel=0.05)


@bases
@named(*ADAPTED)
def test_the_predicted_peak_of_lora_holds(case: Case, dtype: torch.dtype) -> None:
    model, batch = made(case, dtype)
    predicted = Lora(RANK).predict(profiled(model, batch, case))
    model = with_lora(model)
    optimizer = torch.optim.AdamW(trained(model))
    peak = measured(model, batch, optimizer, step_of(model, batch, optimizer, case))
    assert predicted.peak == pytest.approx(peak, rel=0.05)


@bases
@named(*QUANTISED)
def test_the_predicted_peak_of_a_4_bit_base_holds(case: Case, dtype: torch.dtype) -> None:
    model, batch = made(case, dtype)
    predicted = Nf4Base(RANK).predict(profiled(model, batch, case))
    model = with_lora(in_4_bits(model))
    optimizer = torch.optim.AdamW(trained(model))
    peak = measured(model, batch, optimizer, step_of(model, batch, optimizer, case))
    assert predicted.peak == pytest.approx(peak, rel=0.05)


@named(*SEVERAL, "llama")
def test_the_predicted_peak_of_8_bit_state_holds(case: Case) -> None:
    bnb = pytest.importorskip("bitsandbytes")
    model, batch = made(case)
    predicted = Adam8bit().predict(profiled(model, batch, case))
    optimizer = bnb.optim.AdamW8bit(model.parameters())
    peak = measured(model, batch, optimizer, step_of(model, batch, optimizer, case))
    assert predicted.peak == pytest.approx(peak, rel=0.05)


def around(prof: Profile) -> list[Technique]:
    """Return the exact changes of forward and backward, each at its strongest."""
    found: list[Technique] = []
    for cls in technique_classes():
        if not cls.reported and cls.slot not in (Slot.STEP, Slot.PARALLEL):
            found += [t for t in cls.propose(prof) if not t.refuse(prof)][-1:]
    return sorted(found, key=lambda t: t.slot)


@pytest.mark.parametrize("technique", [Lora(RANK), Nf4Base(RANK), Adam8bit()], ids=lambda t: t.name)
@named("llama")
def test_the_predicted_peak_holds_with_exact_changes_around(
    case: Case, technique: Technique
) -> None:
    model, batch = made(case)
    plain = profiled(model, batch, case)
    exact = around(plain)
    assert len(exact) == 2
    predicted = plain
    for each in sorted((technique, *exact), key=lambda t: t.slot):
        assert each is technique or not each.refuse(predicted)
        predicted = each.predict(predicted)
    if not isinstance(technique, Adam8bit):
        model = with_lora(in_4_bits(model) if isinstance(technique, Nf4Base) else model)
    for each in exact:
        each.apply(model)
    optimizer: torch.optim.Optimizer = torch.optim.AdamW(trained(model))
    if isinstance(technique, Adam8bit):
        optimizer = pytest.importorskip("bitsandbytes").optim.AdamW8bit(model.parameters())
    peak = measured(model, batch, optimizer, step_of(model, batch, optimizer, case))
    assert predicted.peak == pytest.approx(peak, rel=0.05)


@pytest.mark.parametrize(
    "technique", [Bfloat16Autocast(), Lora(RANK), Adam8bit(), ZerothOrder()], ids=lambda t: t.name
)
def test_of_several_batches_the_largest_is_predicted(technique: Technique) -> None:
    case = next(case for case in ZOO if case.name == "bert")
    small, large = (case.batch(rows) for rows in case.rows)
    one = profile(case.build(), large, optimizer=torch.optim.AdamW, loss=case.loss)
    both = profile(
        case.build(),
        small,
        optimizer=torch.optim.AdamW,
        loss=case.loss,
        other_batches=[large, small],
    )
    assert technique.predict(both).peak == technique.predict(one).peak
    assert technique.predict(both).seconds < technique.predict(one).seconds


def test_adapters_are_not_offered_on_adapters() -> None:
    model, batch = made(next(case for case in ZOO if case.name == "llama"))
    case = next(case for case in ZOO if case.name == "llama")
    prof = profiled(with_lora(model), batch, case)
    assert "frozen already" in Lora(RANK).refuse(prof)
    assert list(Nf4Base.propose(prof)) == []
