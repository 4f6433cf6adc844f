"""``shoestring.profile``: what one training step of a model costs."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import warnings
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import nn

from shoestring.activations.micro_batches import couplings, find_weighting
from shoestring.core.errors import AssumptionWarning, InputError, ShoestringError
from shoestring.core.machine import Machine
from shoestring.core.profile import Profile, Step
from shoestring.core.trace import Phase, Trace
from shoestring.measure._torch import DATA_DEPENDENT, FakeTensor
from shoestring.measure.fake import (
    Batch,
    Faker,
    fake_mode,
    model_tensors,
    optimizer_tensors,
    tensors_in,
)
from shoestring.measure.machines import load_machine
from shoestring.measure.rng import rng_untouched
from shoestring.measure.step import MEAN_NOTE, CustomStep, Loss, StepOptions, Traced, trace_step
from shoestring.measure.workspace import WorkspaceProbe
from shoestring.planner.batches import describe_batch, resize, rows_of

MakeOptimizer: TypeAlias = Callable[..., torch.optim.Optimizer]


def profile(
    model: nn.Module,
    batch: Batch,
    *,
    optimizer: MakeOptimizer | torch.optim.Optimizer | None = None,
    loss: Loss | None = None,
    autocast: torch.dtype | None = None,
    clip_norm: float | None = None,
    accumulate: int = 1,
    set_to_none: bool = True,
    step: CustomStep | None = None,
    other_batches: Sequence[Batch] = (),
    machine: str | Machine | None = None,
) -> Profile:
    """Say what one steady-state training step costs, without running it.

    The step is traced on copies without data, so the model is never changed and a model on
    the meta device does as well as one with weights. A step whose course depends on data is
    traced once on real copies, and the profile says so.

    Args:
        model: any module; its training flag is taken as it is.
        batch: a tensor, a tuple (positions) or a dict (keywords); shapes are all that counts.
        optimizer: class, ``functools.partial`` or instance; None for forward and backward.
        loss: ``f(output, batch) -> scalar``; by default ``output.loss``, else the mean of
            the output with a warning.
        autocast: dtype of mixed precision, as in ``torch.bfloat16``.
        clip_norm: global gradient-norm clipping.
        accumulate: micro-batches per step; ``batch`` is one of them.
        set_to_none: whether gradients are freed between steps.
        step: the user's own ``f(model, batch, optimizer)`` of one whole step; then nothing
            about the step is assumed.
        other_batches: further batches that must fit too; the peak is the largest.
        machine: name of a machine's data sheet, ``"this"`` by default.

    Returns:
        The profile.

    Raises:
        InputError: the batch, the loss or an option cannot be used.
        RefusedError: the model cannot be traced.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(1000, 1000, bias=False)
        >>> prof = profile(model, torch.zeros(8, 1000), loss=lambda y, x: y.square().mean())
        >>> prof.trace.static  # 4 MB of weights and the batch
        4032000
    """
    options = StepOptions(loss, autocast, clip_norm, accumulate, set_to_none, step)
    _check(model, batch, options)
    sheet = load_machine(machine)
    tracing = functools.partial(_trace, model, optimizer, sheet)
    first = tracing(batch, options)
    others = [tracing(other, options).traced.trace for other in other_batches]
    if MEAN_NOTE in first.traced.assumptions:
        warnings.warn(MEAN_NOTE + "; pass loss= to be exact.", AssumptionWarning, stacklevel=2)

    def retrace(
        *,
        rows: int | None = None,
        autocast: torch.dtype | None = None,
        optimizer: bool = True,
    ) -> Trace:
        other = batch if rows is None else resize(batch, rows)
        changed = dataclasses.replace(options, autocast=autocast or options.autocast)
        again = tracing if optimizer else functools.partial(_trace, model, None, sheet)
        return again(other, changed).traced.trace

    return Profile(
        step=_describe(model, batch, options, first),
        traces=(first.traced.trace, *others),
        machine=sheet,
        assumptions=first.traced.assumptions,
        retrace=retrace,
        weighting=_weighting(model, batch, loss),
    )


def _weighting(model: nn.Module, batch: Batch, loss: Loss | None) -> Callable[[], str] | None:
    tensors = [*model_tensors(model), *tensors_in(batch)]
    if any(t.is_meta or isinstance(t, FakeTensor) for t in tensors):
        return None
    return functools.partial(find_weighting, model, batch, loss)


def _check(model: nn.Module, batch: Batch, options: StepOptions) -> None:
    if not isinstance(model, nn.Module):
        raise InputError(
            f"{type(model).__name__} is not a torch.nn.Module.", hint="pass the model itself."
        )
    rows_of(batch)
    if options.accumulate < 1:
        raise InputError("accumulate must be at least 1.", hint="it counts micro-batches.")
    if options.custom is not None and options != StepOptions(custom=options.custom):
        raise InputError(
            "step= is the whole step, so loss=, autocast=, clip_norm=, accumulate= and "
            "set_to_none= would have no effect.",
            hint="leave them out, or leave out step=.",
        )


def _trace(
    model: nn.Module,
    optimizer: MakeOptimizer | torch.optim.Optimizer | None,
    sheet: Machine,
    batch: Batch,
    options: StepOptions,
) -> _Run:
    with rng_untouched():
        try:
            return _attempt(model, optimizer, sheet, batch, options, real=False)
        except DATA_DEPENDENT:
            run = _attempt(model, optimizer, sheet, batch, options, real=True)
    note = "the step depends on data: it was traced once on a real copy with this batch"
    traced = dataclasses.replace(run.traced, assumptions=(note, *run.traced.assumptions))
    return dataclasses.replace(run, traced=traced, fake=False)


@dataclasses.dataclass(frozen=True, slots=True)
class _Run:
    """One traced step, and the optimizer that was built for it."""

    traced: Traced
    optimizer: torch.optim.Optimizer | None
    fake: bool = True


def _attempt(
    model: nn.Module,
    optimizer: MakeOptimizer | torch.optim.Optimizer | None,
    sheet: Machine,
    batch: Batch,
    options: StepOptions,
    *,
    real: bool,
) -> _Run:
    mode = fake_mode()
    faker = Faker(mode, real=real)
    probe = WorkspaceProbe() if sheet.device == "cpu" and sheet.name == "this" else None
    twin = faker.deepcopy(model, model_tensors(model))
    assert isinstance(twin, nn.Module)
    shapes = faker.batch(batch)
    with contextlib.nullcontext() if real else mode:
        copied = _twin_optimizer(optimizer, twin, faker, sheet)
    try:
        traced = trace_step(
            twin,
            shapes,
            copied,
            options,
            machine=sheet,
            rows=rows_of(batch),
            mode=None if real else mode,
            probe=probe,
        )
    except (ShoestringError, *DATA_DEPENDENT):
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        raise InputError(
            f"the step raised {type(error).__name__}: {text}",
            hint="check that model(batch) runs: a dict is passed by keywords, a tuple by position.",
        ) from error
    return _Run(traced, copied)


def _twin_optimizer(
    optimizer: MakeOptimizer | torch.optim.Optimizer | None,
    twin: nn.Module,
    faker: Faker,
    sheet: Machine,
) -> torch.optim.Optimizer | None:
    if optimizer is None:
        return None
    if isinstance(optimizer, torch.optim.Optimizer):
        copied = faker.deepcopy(optimizer, optimizer_tensors(optimizer))
    else:
        trained = [p for p in twin.parameters() if p.requires_grad]
        if not trained:
            raise InputError("no parameter of the model is trained.", hint="unfreeze some of them.")
        copied = optimizer(trained)
    if not isinstance(copied, torch.optim.Optimizer):
        raise InputError(
            f"optimizer= gave a {type(copied).__name__}, not a torch.optim.Optimizer.",
            hint="pass a class, a functools.partial of one, or an instance.",
        )
    for group in copied.param_groups:
        if sheet.foreach and group.get("foreach", 0) is None and not group.get("fused"):
            group["foreach"] = True
    return copied


def _describe(model: nn.Module, batch: Batch, options: StepOptions, run: _Run) -> Step:
    parameters = list(model.parameters())
    optimizer = run.optimizer
    kind = type(optimizer)
    defaults = {} if optimizer is None else optimizer.defaults
    plain = (int, float, bool, str)
    return Step(
        model=type(model).__name__,
        num_parameters=sum(p.numel() for p in parameters),
        num_trainable=sum(p.numel() for p in parameters if p.requires_grad),
        batch=describe_batch(batch),
        rows=rows_of(batch),
        optimizer="" if optimizer is None else f"{kind.__module__}.{kind.__qualname__}",
        optimizer_options={k: v for k, v in defaults.items() if v is None or isinstance(v, plain)},
        autocast="" if options.autocast is None else str(options.autocast)[len("torch.") :],
        clip_norm=options.clip_norm,
        accumulate=options.accumulate,
        set_to_none=options.set_to_none,
        custom=options.custom is not None,
        fake=run.fake,
        fingerprint=fingerprint(model),
        couplings=couplings(model),
        blocks_checkpointed=any(op.phase is Phase.RECOMPUTE for op in run.traced.trace.ops),
    )


def fingerprint(model: nn.Module) -> str:
    """Return a hash of a model's parameter names, shapes and dtypes.

    Args:
        model: the model.
    """
    text = ";".join(f"{n} {tuple(p.shape)} {p.dtype}" for n, p in model.named_parameters())
    return hashlib.sha256(text.encode()).hexdigest()[:16]
