"""A schedule that is followed without capture: the forward records, and autograd asks again."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Final

import numpy as np
from torch import nn

from shoestring.activations.remat.answer import relative_gap
from shoestring.activations.remat.check import BlockCheck
from shoestring.activations.remat.eager.front import Choice, Search, search
from shoestring.activations.remat.eager.predict import recomputed
from shoestring.activations.remat.eager.recording import record, recorded
from shoestring.activations.remat.eager.sites import Site
from shoestring.core.errors import InfeasibleError
from shoestring.core.machine import Machine
from shoestring.core.trace import Phase, Trace
from shoestring.core.units import format_bytes

_SHOWN: Final = 12


@dataclasses.dataclass(frozen=True)
class RecordedSchedule:
    """What a step keeps and what it computes again, operator by operator, without capture.

    Attributes:
        plain: the step that computes nothing twice.
        trace: the step in this schedule.
        sites: the operations that run again; none where the plain step is within the budget.
        budget: bytes that were given.
        lower_bound: seconds that no choice of what is computed once more stays under.
        machine: what seconds were told for.
        why: why the step is not captured; empty where nothing needs to change.
        check: that computing again changes nothing, on the model's own blocks; None where it was
            not asked for.
    """

    plain: Trace
    trace: Trace
    sites: frozenset[Site]
    budget: int
    lower_bound: float
    machine: Machine
    why: str
    check: BlockCheck | None = None

    @property
    def path(self) -> str:
        """``eager``: operators run one by one; ``plain``: nothing is changed."""
        return "eager" if self.sites else "plain"

    @property
    def peak(self) -> int:
        """Most bytes at one time above parameters, buffers and the batch, gradients included."""
        return self.trace.peak - self.trace.static

    @property
    def seconds(self) -> float:
        """Of the step, as the machine is priced."""
        return sum(self.machine.seconds(op) for op in self.trace.ops)

    @property
    def overhead(self) -> float:
        """Seconds of computing again, as a share of those of the step without."""
        return relative_gap(self.seconds, self._plain_seconds)

    @property
    def gap(self) -> float:
        """How much longer the step takes than the lower bound, as a share of it."""
        return relative_gap(self.seconds, self.lower_bound)

    @property
    def _plain_seconds(self) -> float:
        return sum(self.machine.seconds(op) for op in self.plain.ops)

    def apply(self, model: nn.Module) -> None:
        """Let a model follow the schedule, in place; `remat.remove` undoes it.

        Args:
            model: as it was when the schedule was made. It is left as it is where the plain step
                is within the budget.

        Raises:
            RefusedError: it is fitted already, or its forward was replaced by a function that
                does not take the model.
        """
        if self.sites:
            record(model, self.sites)

    def table(self) -> str:
        """Return what the schedule costs, and what is computed again, as text."""
        whole = self.plain.peak - self.plain.static
        least = relative_gap(self.lower_bound, self._plain_seconds)
        rows = [
            ("budget", format_bytes(self.budget)),
            (
                "peak",
                f"{format_bytes(self.peak)}, {self.peak / whole:.0%} of {format_bytes(whole)}",
            ),
            ("computed again", f"{self.overhead:.1%} of the step (at least {least:.1%})"),
            ("path", self.path + (f": {self.why}" if self.why else "")),
        ]
        if self.check is not None:
            rows.append(("self-check", str(self.check)))
        width = max(len(name) for name, _ in rows)
        lines = [f"{name:<{width}}  {words}" for name, words in rows]
        return "\n".join([*lines, *self._kinds()])

    def _kinds(self) -> list[str]:
        """Return what is computed again, by operator; what takes longest comes first."""
        times: dict[str, int] = {}
        seconds: dict[str, float] = {}
        for op in self.trace.ops:
            if op.phase is Phase.RECOMPUTE:
                times[op.name] = times.get(op.name, 0) + 1
                seconds[op.name] = seconds.get(op.name, 0.0) + self.machine.seconds(op)
        if not times:
            return []
        names = sorted(times, key=lambda name: -seconds[name])[:_SHOWN]
        width = max(map(len, names))
        share = self._plain_seconds or 1.0
        rows = [f"{n:<{width}}  {times[n]:>5} x  {seconds[n] / share:>6.1%}" for n in names]
        more = len(times) - len(names)
        return ["", *rows, *([f"and {more} more"] if more > 0 else [])]

    def wrap(self, model: nn.Module) -> Callable[[nn.Module], Callable[..., object]]:
        """Return what runs a block of a model as this schedule does, for the self-check.

        Args:
            model: whose blocks they are.
        """
        paths = {id(module): path for path, module in model.named_modules()}

        def again(block: nn.Module) -> Callable[..., object]:
            path = paths[id(block)]
            inside = f"{path}." if path else ""
            own = frozenset(
                site._replace(module=site.module[len(path) :].removeprefix("."))
                for site in self.sites
                if site.module == path or site.module.startswith(inside)
            )
            return functools.partial(recorded(type(block).forward, own), block)

        return again


def within(trace: Trace, machine: Machine, budget: int, why: str) -> RecordedSchedule:
    """Return the fastest schedule found within a budget.

    Args:
        trace: the plain step, forward and backward alone.
        machine: tells seconds.
        budget: most bytes above parameters, buffers and the batch.
        why: why the step is not captured.

    Raises:
        InfeasibleError: none fits; it says the least bytes that one reaches.
    """
    seconds = sum(machine.seconds(op) for op in trace.ops)
    if trace.peak - trace.static <= budget:
        return RecordedSchedule(trace, trace, frozenset(), budget, seconds, machine, "")
    found = search(trace, machine)
    fitting = [c for c in found.choices() if c.peak - trace.static <= budget]
    if not fitting:
        raise _infeasible(found, trace, budget)
    best = min(fitting, key=lambda choice: (choice.seconds, choice.peak))
    changed = recomputed(trace, best.sites)
    bound = min(seconds + found.bound(budget), seconds + best.seconds)
    return RecordedSchedule(trace, changed, best.sites, budget, bound, machine, why)


def _infeasible(found: Search, trace: Trace, budget: int) -> InfeasibleError:
    plain = found.plain
    least: Choice = min([plain, *found.choices()], key=lambda choice: choice.peak)
    changed = recomputed(trace, least.sites)
    op = changed.ops[int(np.argmax(changed.timeline()))]
    where = f" of {op.module}" if op.module else ""
    reached = least.peak - trace.static
    return InfeasibleError(
        f"nothing that is computed again fits {format_bytes(budget)} of activations: the least "
        f"that was found is {format_bytes(reached)}, bound by {op.name}{where} in "
        f"{op.phase.value}.",
        hint=f"give activations={reached} or more, or a smaller batch.",
    )
