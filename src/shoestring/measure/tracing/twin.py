"""Trace a model's step on a twin without data."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import nn

from shoestring.core.errors import InputError, ShoestringError
from shoestring.core.machine import Machine
from shoestring.core.trace import Trace
from shoestring.measure._torch import DATA_DEPENDENT, FakeTensor
from shoestring.measure.rng import rng_untouched
from shoestring.measure.tracing.fake import (
    Batch,
    Faker,
    fake_mode,
    model_tensors,
    optimizer_tensors,
    tensors_in,
)
from shoestring.measure.tracing.step import StepOptions, trace_step
from shoestring.measure.tracing.workspace import WorkspaceProbe

MakeOptimizer: TypeAlias = Callable[..., torch.optim.Optimizer]
Change: TypeAlias = Callable[[nn.Module], None]


def rows_of(batch: Batch) -> int:
    """Return the rows of a batch: the size of dimension 0 that most of its tensors share.

    Args:
        batch: tensor, tuple or dict.

    Raises:
        InputError: no tensor has a dimension, or one has no rows.
    """
    sizes = [t.shape[0] for t in tensors_in(batch) if t.dim() > 0]
    if not sizes:
        raise InputError("the batch holds no tensor with rows.", hint="pass tensors as the batch.")
    if any(t.numel() == 0 for t in tensors_in(batch)):
        raise InputError("the batch is empty.", hint="every size of its tensors must be above 0.")
    return max(set(sizes), key=sizes.count)


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """One traced step.

    Attributes:
        trace: the step.
        assumptions: what had to be assumed.
        optimizer: the one that was built for it.
        fake: whether it was traced without data.
    """

    trace: Trace
    assumptions: tuple[str, ...]
    optimizer: torch.optim.Optimizer | None
    fake: bool = True


def trace_model(
    model: nn.Module,
    batch: Batch,
    optimizer: MakeOptimizer | torch.optim.Optimizer | None,
    options: StepOptions,
    sheet: Machine,
    change: Change | None = None,
    without: Sequence[nn.Module] = (),
) -> Run:
    """Trace one step of a copy of a model; a step that depends on data, on a real copy.

    Args:
        model: not changed.
        batch: one batch.
        optimizer: class, partial, instance or None.
        options: how the step is run.
        sheet: the machine it is priced for.
        change: is applied to the copy before the step.
        without: modules that the changed copy does not have.

    Raises:
        InputError: the step raised, or the optimizer cannot be used.
        RefusedError: the model cannot be copied.
    """
    attempt = functools.partial(_attempt, model, batch, optimizer, options, sheet, change, without)
    with rng_untouched():
        try:
            return attempt(real=False)
        except DATA_DEPENDENT:
            run = attempt(real=True)
            why = "the step depends on data"
        except InputError as error:
            if error.__cause__ is None or not have_data(model, batch):
                raise
            # Torch's fake kernels refuse some of what its kernels do.
            try:
                run = attempt(real=True)
            except Exception:  # noqa: BLE001  # the step raises with data too
                raise error from error.__cause__
            why = "torch cannot run the step without data"
    note = f"{why}: it was traced once on a real copy with this batch"
    return dataclasses.replace(run, assumptions=(note, *run.assumptions), fake=False)


def have_data(model: nn.Module, batch: Batch) -> bool:
    """Whether a model and its batch have values, and not only shapes.

    Args:
        model: any module.
        batch: one batch.
    """
    tensors = [*model_tensors(model), *tensors_in(batch)]
    return not any(t.is_meta or isinstance(t, FakeTensor) for t in tensors)


def _attempt(
    model: nn.Module,
    batch: Batch,
    optimizer: MakeOptimizer | torch.optim.Optimizer | None,
    options: StepOptions,
    sheet: Machine,
    change: Change | None,
    without: Sequence[nn.Module],
    *,
    real: bool,
) -> Run:
    mode = fake_mode()
    faker = Faker(mode, real=real)
    probe = WorkspaceProbe() if sheet.device == "cpu" and sheet.name == "this" else None
    twin = faker.deepcopy(model, model_tensors(model, without), without)
    assert isinstance(twin, nn.Module)
    shapes = faker.batch(batch)
    with contextlib.nullcontext() if real else mode:
        if change is not None:
            change(twin)
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
    return Run(traced.trace, traced.assumptions, copied)


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
