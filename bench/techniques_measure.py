"""What one technique does to one step: its peak, measured and predicted, and its time.

The plain step and the changed one are built anew from the zoo, each with its own model. A
peak is that of the third step, by the allocator's own events.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import time
import weakref
from collections.abc import Callable
from typing import Final, TypeAlias
from unittest import mock

import numpy as np
import torch

import shoestring
from bench.harness import interleave, ratio_and_spread
from shoestring.activations import offload
from shoestring.activations.micro_batches import MicroBatches
from shoestring.core.errors import RefusedError
from shoestring.core.profile import Profile
from shoestring.core.technique import Technique
from shoestring.measure.tracing.allocator import measure_step, standing, steady_step
from shoestring.measure.tracing.step import StepOptions, forward_loss
from shoestring.planner.batches import with_row_sizes
from tests.zoo import ZOO, Case

Record: TypeAlias = dict[str, object]
Optimizer: TypeAlias = Callable[..., torch.optim.Optimizer]

PLAIN: Final = "AdamW"
OPTIMIZERS: Final[dict[str, Optimizer]] = {
    PLAIN: torch.optim.AdamW,
    "foreach AdamW": functools.partial(torch.optim.AdamW, foreach=True),
}
"""On a CPU torch's own default is the loop over parameters, on a card the foreach form."""

PARTS: Final = 4
"""Micro-batches, where the batch has as many rows."""
ROUNDS: Final = 7
SAMPLE_SECONDS: Final = 0.2
"""A sample runs as many steps as take about this long, and at least one."""


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """One step of the comparison.

    Attributes:
        model: name in the zoo.
        rows: of its batch.
        optimizer: one of `OPTIMIZERS`.
    """

    model: str
    rows: int
    optimizer: str = PLAIN

    @property
    def case(self) -> Case:
        """The model of the zoo."""
        return next(case for case in ZOO if case.name == self.model)


@dataclasses.dataclass(frozen=True, slots=True)
class Side:
    """A step that can be run and measured.

    Attributes:
        step: runs it once.
        roots: returns the tensors that are there when it begins.
    """

    step: Callable[[], None]
    roots: Callable[[], list[torch.Tensor]]

    def peak(self) -> int:
        """Return the peak of the third step: the first one makes the optimizer's state."""
        self.step()
        self.step()
        return measure_step(self.step, roots=self.roots).peak


@functools.cache
def profile_of(cell: Cell) -> Profile:
    """Return the plain step's profile.

    Args:
        cell: the step.
    """
    case = cell.case
    return shoestring.profile(
        case.build(), case.batch(cell.rows), optimizer=OPTIMIZERS[cell.optimizer], loss=case.loss
    )


@functools.cache
def plain_peak(cell: Cell) -> int:
    """Return the measured peak of the plain step.

    Args:
        cell: the step.
    """
    return plain_side(cell).peak()


def plain_side(cell: Cell) -> Side:
    """Return the plain step.

    Args:
        cell: the step.
    """
    case = cell.case
    model, batch = case.build(), case.batch(cell.rows)
    optimizer = OPTIMIZERS[cell.optimizer](model.parameters())
    step = steady_step(model, batch, optimizer, case.loss)
    return Side(step, lambda: standing(model, batch, optimizer))


def changed_side(cell: Cell, technique: Technique) -> Side:
    """Return the step with a technique that plans apply.

    Args:
        cell: the step.
        technique: it, with its options.
    """
    case = cell.case
    model, batch = case.build(), case.batch(cell.rows)
    technique.apply(model)
    optimizer = technique.make_optimizer(OPTIMIZERS[cell.optimizer](model.parameters()))
    options = StepOptions(loss=case.loss)

    def step() -> None:
        for parameter in model.parameters():
            parameter.grad = None
        with _host(technique), technique.context():
            for part, weight in technique.split(batch):
                loss, _ = forward_loss(model, part, options)
                (loss if weight == 1.0 else loss * weight).backward()
                del loss
        optimizer.step()

    return Side(step, lambda: standing(model, batch, optimizer))


def _host(technique: Technique) -> contextlib.AbstractContextManager[object]:
    """Return a context in which what is offloaded leaves the memory that is counted."""
    if isinstance(technique, offload.Offload):
        return mock.patch.object(offload, "_Moved", _Elsewhere)
    return contextlib.nullcontext()


class _Elsewhere:
    """A tensor in memory that torch's allocator does not count."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.origin = weakref.ref(tensor.untyped_storage())
        self._there = np.array(tensor.detach().numpy(), order="K")

    def back(self) -> torch.Tensor:
        return torch.from_numpy(self._there).clone()


def choose(kind: type[Technique], prof: Profile) -> Technique:
    """Return a technique at its strongest, as a plan would apply it.

    Args:
        kind: its class.
        prof: the plain step.

    Raises:
        RefusedError: it cannot be used on this step.
    """
    proposed = [t for t in kind.propose(prof) if getattr(t, "parts", 0) <= PARTS]
    if not proposed:
        raise RefusedError(f"{kind.name} finds nothing to change.", hint="take another model.")
    technique = proposed[-1]
    reason = technique.refuse(prof)
    # A CPU has no memory of its own, and here stands in for a card that has.
    if reason and kind is not offload.Offload:
        raise RefusedError(f"{kind.name}: {reason}", hint="take another model.")
    return technique.confirm(prof)


def measure(
    cell: Cell,
    kind: type[Technique],
    *,
    side: Callable[[Cell], Side] | None = None,
    timed: bool = True,
) -> Record:
    """Return one row of a technique's result.

    Args:
        cell: the step.
        kind: the technique's class.
        side: makes the changed step; by default the technique itself does.
        timed: whether the step is timed against the plain one.

    Returns:
        Bytes, ratios and the raw samples of the times, in processor seconds of a step.
    """
    prof = profile_of(cell)
    if kind is MicroBatches:
        prof = with_row_sizes(prof)
    technique = choose(kind, prof)
    predicted = technique.predict(prof)
    changed = side(cell) if side else changed_side(cell, technique)
    row: Record = {
        "model": cell.model,
        "batch": cell.rows,
        "optimizer": cell.optimizer,
        "change": technique.describe(),
        "plain": plain_peak(cell),
        "measured": changed.peak(),
        "predicted": predicted.peak,
        "time_ratio": None,
        "time_spread": None,
        "predicted_time_ratio": None,
        "samples": {},
    }
    if timed:
        samples = _times(changed, plain_side(cell))
        row["time_ratio"], row["time_spread"] = ratio_and_spread(samples["ours"], samples["peer"])
        row["predicted_time_ratio"] = predicted.seconds / prof.seconds
        row["samples"] = samples
    return row


def _times(changed: Side, plain: Side) -> dict[str, list[float]]:
    plain.step()  # which makes the optimizer's state
    begin = time.process_time()
    plain.step()
    took = max(time.process_time() - begin, 1e-6)
    steps = max(1, math.ceil(SAMPLE_SECONDS / took))

    def several(side: Side) -> Callable[[], None]:
        def run() -> None:
            for _ in range(steps):
                side.step()

        return run

    samples = interleave(several(changed), several(plain), rounds=ROUNDS)
    return {name: [round(s / steps, 6) for s in found] for name, found in samples.items()}
