"""``shoestring.profile``: what one training step of a model costs."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import nn

from shoestring.activations.micro_batches import couplings, find_weighting
from shoestring.core.errors import AssumptionWarning, InputError
from shoestring.core.fidelity import Fidelity
from shoestring.core.machine import Machine
from shoestring.core.profile import Profile, Step
from shoestring.core.trace import Phase
from shoestring.measure.timing.machines import load_machine
from shoestring.measure.tracing.fake import Batch
from shoestring.measure.tracing.step import MEAN_NOTE, CustomStep, Loss, StepOptions
from shoestring.measure.tracing.twin import MakeOptimizer, Run, have_data, rows_of, trace_model
from shoestring.planner.batches import describe_batch
from shoestring.planner.buckets import BUCKETS, Buckets
from shoestring.planner.tracing import Retracer
from shoestring.planner.wrapped import COMPILED, buckets_of, is_compiled, refuse_spread, unwrapped
from shoestring.planner.zeroth import check_options, fidelity_of, is_zeroth, moves_of


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
    ddp: Buckets | None = None,
    other_batches: Sequence[Batch] = (),
    machine: str | Machine | None = None,
) -> Profile:
    """Say what one steady-state training step costs, without running it.

    The step is traced on copies without data, so the model is never changed and a model on
    the meta device does as well as one with weights. A step whose course depends on data is
    traced once on real copies, and the profile says so.

    Args:
        model: any module; its training flag is taken as it is. Of what
            DistributedDataParallel or torch.compile returned, the model inside is profiled.
        batch: a tensor, a tuple (positions) or a dict (keywords); shapes are all that counts.
        optimizer: class, ``functools.partial`` or instance; None for forward and backward. With
            one of `shoestring.zeroth` the step is forward passes alone, as its own are.
        loss: ``f(output, batch) -> scalar``; by default ``output.loss``, else the mean of
            the output with a warning.
        autocast: dtype of mixed precision, as in ``torch.bfloat16``.
        clip_norm: global gradient-norm clipping.
        accumulate: micro-batches per step; ``batch`` is one of them.
        set_to_none: whether gradients are freed between steps.
        step: the user's own ``f(model, batch, optimizer)`` of one whole step; then nothing
            about the step is assumed.
        ddp: for a step in DistributedDataParallel ``"copies"``, or ``"views"`` where it has
            ``gradient_as_bucket_view=True``: counts its buckets. A wrapped model says it itself.
        other_batches: further batches that must fit too; the peak is the largest.
        machine: name of a machine's data sheet, ``"this"`` by default.

    Returns:
        The profile.

    Raises:
        InputError: the batch, the loss or an option cannot be used.
        RefusedError: the model cannot be traced, or is sharded already.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(1000, 1000, bias=False)
        >>> prof = profile(model, torch.zeros(8, 1000), loss=lambda y, x: y.square().mean())
        >>> prof.trace.static  # 4 MB of weights and the batch
        4032000
    """
    options = StepOptions(loss, autocast, clip_norm, accumulate, set_to_none, step)
    _check(model, batch, options, ddp)
    sheet = load_machine(machine)
    compiled, buckets = is_compiled(model), ddp or buckets_of(model)
    if step is not None and buckets is not None:
        raise InputError(
            "what the buckets of DistributedDataParallel hold cannot be told for a step of your "
            "own.",
            hint="leave out step=, or profile the model without ddp= and without its wrapper.",
        )
    model = unwrapped(model)
    refuse_spread(model)
    batches = (batch, *other_batches)
    moves, fidelity = None, Fidelity.EXACT
    if step is None and is_zeroth(optimizer):
        check_options(options, ddp)
        moves, made = moves_of(model.parameters(), optimizer, accumulate)
        options, fidelity = StepOptions(loss, autocast, backward=False), fidelity_of(made)
        runs = [
            dataclasses.replace(run, trace=moves.after(run.trace), optimizer=made)
            for run in (trace_model(model, each, None, options, sheet) for each in batches)
        ]
    else:
        runs = [trace_model(model, each, optimizer, options, sheet) for each in batches]
    if MEAN_NOTE in runs[0].assumptions:
        warnings.warn(MEAN_NOTE + "; pass loss= to be exact.", AssumptionWarning, stacklevel=2)
    traces = [run.trace for run in runs]
    retrace = Retracer(model, batches, optimizer, options, sheet, traces, buckets, moves)
    return Profile(
        step=dataclasses.replace(
            _describe(model, batch, options, runs[0]), ddp=buckets or "", accumulate=accumulate
        ),
        traces=tuple(retrace.in_buckets(run.trace) for run in runs),
        machine=sheet,
        assumptions=(*runs[0].assumptions, *([COMPILED] if compiled else ())),
        fidelity=fidelity,
        retrace=retrace,
        weighting=_weighting(model, batch, loss),
    )


def _weighting(model: nn.Module, batch: Batch, loss: Loss | None) -> Callable[[], str] | None:
    return (
        functools.partial(find_weighting, model, batch, loss) if have_data(model, batch) else None
    )


def _check(model: nn.Module, batch: Batch, options: StepOptions, ddp: object) -> None:
    if not isinstance(model, nn.Module):
        raise InputError(
            f"{type(model).__name__} is not a torch.nn.Module.", hint="pass the model itself."
        )
    rows_of(batch)
    if options.accumulate < 1:
        raise InputError("accumulate must be at least 1.", hint="it counts micro-batches.")
    if ddp is not None and ddp not in BUCKETS:
        raise InputError(
            f"ddp={ddp!r} is not known.",
            hint='use "copies", or "views" with gradient_as_bucket_view=True.',
        )
    if options.custom is not None and options != StepOptions(custom=options.custom):
        raise InputError(
            "step= is the whole step, so loss=, autocast=, clip_norm=, accumulate= and "
            "set_to_none= would have no effect.",
            hint="leave them out, or leave out step=.",
        )


def _describe(model: nn.Module, batch: Batch, options: StepOptions, run: Run) -> Step:
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
        recomputes=any(op.phase is Phase.RECOMPUTE for op in run.trace.ops),
    )


def fingerprint(model: nn.Module) -> str:
    """Return a hash of a model's parameter names, shapes and dtypes.

    Args:
        model: the model.
    """
    text = ";".join(f"{n} {tuple(p.shape)} {p.dtype}" for n, p in model.named_parameters())
    return hashlib.sha256(text.encode()).hexdigest()[:16]
