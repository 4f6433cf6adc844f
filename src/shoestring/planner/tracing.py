"""Trace a profiled step again, changed."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Final

import torch
from torch import nn

from shoestring.core.deepen import TEMPLATES, deepen
from shoestring.core.errors import ShoestringError
from shoestring.core.machine import Machine
from shoestring.core.trace import Op, Storage, Trace
from shoestring.measure._torch import DATA_DEPENDENT
from shoestring.measure.tracing.blocks import repeated_blocks
from shoestring.measure.tracing.fake import Batch
from shoestring.measure.tracing.step import StepOptions
from shoestring.measure.tracing.twin import Change, MakeOptimizer, rows_of, trace_model
from shoestring.planner.batches import half_of, resize, sized_by_row
from shoestring.planner.buckets import Buckets, with_buckets
from shoestring.planner.zeroth import Moves

_DEEP: Final = 2 * TEMPLATES
"""Layers from which on a few of them are traced in place of all."""


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
        moves: what a zeroth-order step takes beside its forward passes; None of another step.
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
        moves: Moves | None = None,
    ) -> None:
        self._model = model
        self._batches = batches
        self._optimizer = optimizer
        self._options = options
        self._sheet = sheet
        self._traces = traces
        self._buckets = buckets
        self._moves = moves
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
        options = dataclasses.replace(self._options, backward=backward and self._moves is None)
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
            made = self._optimizer if optimizer and self._moves is None else None
            found = _by_row(
                [
                    trace_model(self._model, each, made, options, self._sheet, change).trace
                    for each in batches
                ]
            )
        if self._moves is not None and optimizer:
            found = self._moves.after(found)
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
