"""A plan in a plain loop, in Lightning and in accelerate trains what each trains without it."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from shoestring.core.budget import Budget
from shoestring.core.errors import RefusedError
from shoestring.measure.tracing.allocator import measure_step, standing
from shoestring.planner.plan import Plan
from shoestring.planner.planning import plan as make_plan
from shoestring.planner.profiling import profile
from tests.integrations.planned import (
    ADAMW,
    ROUNDED,
    SGD,
    TECHNIQUES,
    Weights,
    apart,
    close,
    language_model,
    one_thread,
    plan_of,
    tokens,
    weights,
)

pytest.importorskip("transformers")

STEPS = 5
ROWS = [{k: v[0] for k, v in tokens(seed, rows=1).items()} for seed in range(8 * STEPS)]
ROUNDING = 1e-5
Trainer = Callable[..., Weights]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


def loader() -> torch.utils.data.DataLoader[dict[str, torch.Tensor]]:
    return torch.utils.data.DataLoader(ROWS, batch_size=8)


def options_of(optimizer: functools.partial[torch.optim.Optimizer]) -> dict[str, float]:
    return dict(optimizer.keywords)


# --- the trainers: each runs plainly with plan=None ----------------------------------------


def loop(plan: Plan | None, make: functools.partial[torch.optim.Optimizer]) -> Weights:
    model = language_model()
    if plan is None:
        optimizer = make(model.parameters())
        for batch in loader():
            model(**batch).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        return weights(model)
    plan.apply(model)
    optimizer = plan.optimizer(model.parameters(), **options_of(make))
    for batch in loader():
        with plan.context():
            for part, weight in plan.split(batch):
                (weight * model(**part).loss).backward()
        optimizer.step()
        optimizer.zero_grad()
    close(optimizer)
    return weights(model)


def accelerated(
    plan: Plan | None,
    make: functools.partial[torch.optim.Optimizer],
    *,
    accumulate: int = 1,
    precision: str = "no",
    late: bool = False,
) -> Weights:
    accelerate = pytest.importorskip("accelerate")
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    accelerate.state.GradientState._reset_state()
    accelerator = accelerate.Accelerator(
        cpu=True, gradient_accumulation_steps=accumulate, mixed_precision=precision
    )
    plain = language_model()
    if plan is not None and not late:
        plan.apply(plain)
    built = (
        make(plain.parameters())
        if plan is None
        else plan.optimizer(plain.parameters(), **options_of(make))
    )
    model, optimizer, batches = accelerator.prepare(plain, built, loader())
    if plan is not None and late:
        plan.apply(plain)
    for batch in batches:
        with accelerator.accumulate(model):
            if plan is None:
                accelerator.backward(model(**batch).loss)
            else:
                with plan.context():
                    for part, weight in plan.split(batch):
                        accelerator.backward(weight * model(**part).loss)
            optimizer.step()
            optimizer.zero_grad()
    close(optimizer.optimizer)
    return weights(plain)


def lightning_fit(
    plan: Plan | None,
    make: functools.partial[torch.optim.Optimizer],
    *,
    manual: bool = True,
    **options: object,
) -> Weights:
    lightning = pytest.importorskip("lightning")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = language_model()
            self.automatic_optimization = plan is None or not manual
            if plan is not None:
                plan.apply(self.model)

        def training_step(self, batch: dict[str, torch.Tensor], index: int) -> torch.Tensor | None:
            if plan is None:
                return self.model(**batch).loss
            if self.automatic_optimization:
                with plan.context():
                    return self.model(**batch).loss
            optimizer = self.optimizers()
            with plan.context():
                for part, weight in plan.split(batch):
                    self.manual_backward(weight * self.model(**part).loss)
            optimizer.step()
            optimizer.zero_grad()
            return None

        def configure_optimizers(self) -> torch.optim.Optimizer:
            if plan is None:
                return make(self.model.parameters())
            return plan.optimizer(self.model.parameters(), **options_of(make))

    module = Module()
    trainer = lightning.Trainer(
        max_steps=STEPS,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    trainer.fit(module, loader())
    assert trainer.global_step == STEPS
    for optimizer in trainer.optimizers:
        close(optimizer)
    return weights(module.model)


# Lightning warns of its own: few workers, a deprecated call of torch's.
LIGHTNING = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
TRAINERS = [
    pytest.param(loop, id="loop"),
    pytest.param(accelerated, id="accelerate"),
    pytest.param(lightning_fit, id="lightning", marks=LIGHTNING),
]


@functools.cache
def plainly(trainer: Trainer, make: functools.partial[torch.optim.Optimizer]) -> Weights:
    return trainer(None, make)


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("name", TECHNIQUES)
def test_a_technique_trains_what_the_trainer_trains_without_it(trainer: Trainer, name: str) -> None:
    make = SGD if name in ROUNDED else ADAMW
    expected = plainly(trainer, make)
    got = trainer(plan_of(name, optimizer=make), make)
    if name in ROUNDED:
        assert apart(expected, got) < ROUNDING
    else:
        assert all(torch.equal(expected[n], got[n]) for n in expected)


@pytest.mark.parametrize("trainer", TRAINERS)
def test_all_techniques_together_train_what_the_trainer_trains(trainer: Trainer) -> None:
    names = [name for name in TECHNIQUES if name != "release-gradients"]
    assert apart(plainly(trainer, SGD), trainer(plan_of(*names, optimizer=SGD), SGD)) < ROUNDING


def test_the_trainers_agree_with_the_loop() -> None:
    assert all(
        torch.equal(w, plainly(accelerated, ADAMW)[n]) for n, w in plainly(loop, ADAMW).items()
    )


# --- memory --------------------------------------------------------------------------------


def peak_of(plan: Plan | None, make: functools.partial[torch.optim.Optimizer]) -> int:
    """The measured peak of a step of the plain loop."""
    model, batch = language_model(), tokens()
    if plan is not None:
        plan.apply(model)
    optimizer = (
        make(model.parameters())
        if plan is None
        else plan.optimizer(model.parameters(), **options_of(make))
    )

    def step() -> None:
        optimizer.zero_grad()
        if plan is None:
            model(**batch).loss.backward()
        else:
            with plan.context():
                for part, weight in plan.split(batch):
                    (weight * model(**part).loss).backward()
        optimizer.step()

    step()
    found = measure_step(step, roots=lambda: standing(model, batch, optimizer))
    close(optimizer)
    return found.peak


@pytest.mark.parametrize("share", ["75%", "60%", "50%"])
def test_the_loop_s_peak_is_as_predicted_and_within_the_budget(share: str) -> None:
    prof = profile(language_model(), tokens(), optimizer=ADAMW)
    plan = make_plan(prof, Budget(memory=share))
    assert plan.steps
    plain, planned = peak_of(None, ADAMW), peak_of(plan, ADAMW)
    assert planned < plain
    assert plan.budget is not None
    assert planned <= plan.budget
    assert planned == pytest.approx(plan.predicted.peak, rel=0.05)
    assert plain == pytest.approx(plan.plain.peak, rel=0.05)


# --- what each trainer adds ----------------------------------------------------------------


@pytest.mark.parametrize("name", ["remat", "sliced-step", "micro-batches"])
def test_accelerate_accumulates_around_a_plan(name: str) -> None:
    make = SGD if name in ROUNDED else ADAMW
    expected = accelerated(None, make, accumulate=2)
    got = accelerated(plan_of(name, optimizer=make), make, accumulate=2)
    assert apart(expected, got) <= (ROUNDING if name in ROUNDED else 0.0)


def test_accelerate_s_accumulation_is_refused_where_gradients_are_used_in_backward() -> None:
    with pytest.raises(RefusedError, match="second gradient"):
        accelerated(plan_of("release-gradients"), ADAMW, accumulate=2)


@pytest.mark.parametrize("name", ["remat", "chunked-loss", "release-gradients"])
def test_a_plan_is_applied_before_or_after_accelerate_prepares_the_model(name: str) -> None:
    make = SGD if name in ROUNDED else ADAMW
    plan = plan_of(name, optimizer=make)
    early, late = accelerated(plan, make), accelerated(plan, make, late=True)
    assert all(torch.equal(early[n], late[n]) for n in early)


def test_accelerate_s_mixed_precision_keeps_a_checkpointed_step_s_bits() -> None:
    plain = accelerated(None, ADAMW, precision="bf16")
    assert any(not torch.equal(w, plainly(accelerated, ADAMW)[n]) for n, w in plain.items())
    got = accelerated(plan_of("remat"), ADAMW, precision="bf16")
    assert all(torch.equal(plain[n], got[n]) for n in plain)


def test_accelerate_shows_torch_s_methods_only() -> None:
    accelerate = pytest.importorskip("accelerate")
    model = nn.Linear(2, 2)
    built = plan_of("release-gradients").optimizer(model.parameters())
    wrapped = accelerate.optimizer.AcceleratedOptimizer(built)
    assert not hasattr(wrapped, "close")
    assert wrapped.optimizer is built
    close(wrapped.optimizer)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["remat", "sliced-step", "release-gradients"])
def test_lightning_s_own_backward_does_without_parts(name: str) -> None:
    expected = plainly(lightning_fit, ADAMW)
    got = lightning_fit(plan_of(name), ADAMW, manual=False)
    assert all(torch.equal(expected[n], got[n]) for n in expected)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_lightning_s_accumulation_is_refused_where_gradients_are_used_in_backward() -> None:
    with pytest.raises(RefusedError, match="second gradient"):
        lightning_fit(plan_of("release-gradients"), ADAMW, manual=False, accumulate_grad_batches=2)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_lightning_s_clipping_is_refused_where_gradients_are_used_in_backward() -> None:
    with pytest.raises(RefusedError, match="nothing can clip"):
        lightning_fit(plan_of("release-gradients"), ADAMW, manual=False, gradient_clip_val=0.1)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("option", ["gradient_clip_val", "accumulate_grad_batches"])
def test_lightning_refuses_its_own_options_where_the_step_is_ours(option: str) -> None:
    exceptions = pytest.importorskip("lightning.pytorch.utilities.exceptions")
    with pytest.raises(exceptions.MisconfigurationException, match="manual optimization"):
        lightning_fit(plan_of("remat"), ADAMW, **{option: 2})


# --- what goes wrong when a piece is left out ----------------------------------------------


def without_weights(plan: Plan) -> Weights:
    model = language_model()
    plan.apply(model)
    optimizer = plan.optimizer(model.parameters(), **options_of(SGD))
    for batch in loader():
        for part, _ in plan.split(batch):
            model(**part).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return weights(model)


def test_parts_without_their_weights_train_something_else() -> None:
    got = without_weights(plan_of("micro-batches", optimizer=SGD))
    assert apart(plainly(loop, SGD), got) > 0.1


def test_an_optimizer_of_torch_s_own_keeps_the_step_s_memory() -> None:
    plan = plan_of("release-gradients")
    model, batch = language_model(vocabulary=20000), tokens(rows=1, length=4)

    def peak(optimizer: torch.optim.Optimizer) -> int:
        def step() -> None:
            optimizer.zero_grad()
            model(**batch).loss.backward()
            optimizer.step()

        step()
        found = measure_step(step, roots=lambda: standing(model, batch, optimizer))
        close(optimizer)
        return found.peak - found.static

    ours = peak(plan.optimizer(model.parameters(), lr=1e-3))
    assert ours < 0.6 * peak(ADAMW(model.parameters()))


def test_clipping_that_the_profile_does_not_know_is_refused_where_gradients_are_used() -> None:
    """The guides say so: between backward and step there is no gradient left to clip."""
    model = language_model()
    optimizer = plan_of("release-gradients").optimizer(model.parameters(), lr=1e-3)
    model(**tokens()).loss.backward()
    with pytest.raises(RefusedError, match="nothing can clip"):
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
    optimizer.step()
    close(optimizer)
    known = profile(language_model(), tokens(), optimizer=ADAMW, clip_norm=1e-3)
    assert "clipping" in TECHNIQUES["release-gradients"].refuse(known)
