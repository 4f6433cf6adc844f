"""Trace a model's step on a twin without data, and trace it again changed."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import torch
from torch import nn

from shoestring.core.deepen import TEMPLATES, deepen
from shoestring.core.errors import InputError, ShoestringError
from shoestring.core.machine import Machine
from shoestring.core.trace import Op, Storage, Trace
from shoestring.measure._torch import DATA_DEPENDENT, FakeTensor
from shoestring.measure.rng import rng_untouched
from shoestring.measure.tracing.blocks import repeated_blocks
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
from shoestring.planner.batches import half_of, resize, rows_of, sized_by_row
from shoestring.planner.buckets import Buckets, with_buckets

MakeOptimizer: TypeAlias = Callable[..., torch.optim.Optimizer]
Change: TypeAlias = Callable[[nn.Module], None]

_DEEP: Final = 2 * TEMPLATES
"""Layers from which on a few of them are traced in place of all."""


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


class Retracer:
    """Traces a profiled step again, changed.

    Of a model of many like layers a few are traced, and the trace is made as deep as the
    model. That is done only where it gives the whole trace of the unchanged step again.

    Args:
        model: as it was profiled.
        batches: all that were profiled.
        optimizer: class, partial, instance or None.
        options: how the step was run.
        sheet: the machine it was priced for.
        traces: of the batches, in one process by itself.
        buckets: what gradients are to the buckets of DistributedDataParallel; None without it.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Sequence[Batch],
        optimizer: MakeOptimizer | torch.optim.Optimizer | None,
        options: StepOptions,
        sheet: Machine,
        traces: Sequence[Trace],
        buckets: Buckets | None = None,
    ) -> None:
        self._model = model
        self._batches = batches
        self._optimizer = optimizer
        self._options = options
        self._sheet = sheet
        self._traces = traces
        self._buckets = buckets
        held = sum(traces[0].storages[i].nbytes for i in traces[0].accumulated)
        trained = {p for p in model.parameters() if p.requires_grad}
        self._unused = max(0, sum(p.numel() * p.element_size() for p in trained) - held)

    def in_buckets(self, trace: Trace, *, changed: bool = False) -> Trace:
        """Return a trace with the buckets of DistributedDataParallel, where the step has them.

        Args:
            trace: of one process by itself.
            changed: whether other parameters are trained than in the profiled step.
        """
        return with_buckets(
            trace,
            self._buckets,
            self._sheet,
            unused=0 if changed else self._unused,
            set_to_none=self._options.set_to_none,
        )

    def __call__(
        self,
        *,
        which: int = 0,
        rows: int | None = None,
        autocast: torch.dtype | None = None,
        optimizer: bool = True,
        backward: bool = True,
        by_row: bool = False,
        change: Change | None = None,
        alone: bool = False,
    ) -> Trace:
        """Return the trace of the changed step.

        Args:
            which: of the profiled batches.
            rows: of the batch; its own by default.
            autocast: dtype of mixed precision; the step's own by default.
            optimizer: whether the optimizer's step belongs to it.
            backward: whether anything follows the forward, which else runs without gradients.
            by_row: learn the bytes per row, which takes a second trace.
            change: is applied to the copy that is traced.
            alone: leave out the buckets of DistributedDataParallel.

        Raises:
            RefusedError: the step does other things at another batch size.
        """
        options = dataclasses.replace(self._options, backward=backward)
        if autocast is not None:
            options = dataclasses.replace(options, autocast=autocast)
        batch = self._batches[which]
        sizes = [rows_of(batch) if rows is None else rows]
        sizes += [half_of(sizes[0])] if by_row else []
        batches = [batch if size == rows_of(batch) else resize(batch, size) for size in sizes]
        found = None
        if not optimizer and self._is_deep:
            found = self._shallow(batches, options, change)
        if found is None:
            made = self._optimizer if optimizer else None
            found = _by_row(
                [
                    trace_model(self._model, each, made, options, self._sheet, change).trace
                    for each in batches
                ]
            )
        return found if alone else self.in_buckets(found, changed=change is not None)

    def _shallow(
        self, batches: Sequence[Batch], options: StepOptions, change: Change | None
    ) -> Trace | None:
        """Trace a few layers, at one size of the batch or two, and deepen that."""
        path, layers = _stack(self._model)

        def changes(twin: nn.Module) -> None:
            container = twin.get_submodule(path)
            assert isinstance(container, (nn.ModuleList, nn.Sequential))
            del container[TEMPLATES:]
            if change is not None:
                change(twin)

        dropped = layers[TEMPLATES:]
        few = [
            trace_model(self._model, each, None, options, self._sheet, changes, dropped).trace
            for each in batches
        ]
        return deepen(_by_row(few), len(layers))

    @functools.cached_property
    def _is_deep(self) -> bool:
        """Whether the model's whole trace can be told from that of a few layers."""
        if len(_stack(self._model)[1]) < _DEEP or self._options.custom is not None:
            return False
        try:
            deep = self._shallow(self._batches[:1], self._options, None)
        except (ShoestringError, *DATA_DEPENDENT):
            return False
        return deep is not None and _agree(deep, self._traces[0])


def _by_row(traces: Sequence[Trace]) -> Trace:
    return traces[0] if len(traces) == 1 else sized_by_row(traces[0], traces[1])


def _stack(model: nn.Module) -> tuple[str, list[nn.Module]]:
    """Return the one container whose children are the repeated blocks; empty where none is."""
    blocks = repeated_blocks(model)
    containers = {path.rpartition(".")[0] for path, _ in blocks}
    if len(containers) == 1:
        path = containers.pop()
        found = model.get_submodule(path)
        if isinstance(found, (nn.ModuleList, nn.Sequential)) and len(found) == len(blocks):
            return path, list(found)
    return "", []


def _agree(deep: Trace, whole: Trace) -> bool:
    """Whether a trace is what another one begins with."""
    end = len(deep.ops)

    def alike(one: Storage, other: Storage) -> bool:
        deaths = [end - 1 if s.death is None else min(s.death, end - 1) for s in (one, other)]
        same = (one.nbytes, one.kind, one.birth) == (other.nbytes, other.kind, other.birth)
        return same and deaths[0] == deaths[1]

    def same(one: Op, other: Op) -> bool:
        return (one.name, one.module, one.reads) == (other.name, other.module, other.reads)

    return (
        len(deep.storages) <= len(whole.storages)
        and end <= len(whole.ops)
        and all(map(same, deep.ops, whole.ops))
        and all(map(alike, deep.storages, whole.storages))
    )
