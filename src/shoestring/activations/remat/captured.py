"""A schedule: what a step keeps, what it computes again, and what that costs."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Final, NamedTuple

from torch import nn

from shoestring.activations.remat.answer import Answer, relative_gap
from shoestring.activations.remat.check import BlockCheck
from shoestring.activations.remat.graph import Graph
from shoestring.activations.remat.simulate import Simulation, simulate
from shoestring.activations.remat.timeline import Place, places, timeline
from shoestring.core.errors import RefusedError
from shoestring.core.markup import Html, joined, table
from shoestring.core.units import format_bytes

SCHEMA: Final = "shoestring/remat-schedule/1"

_PLACES: Final = 40
_SMALL: Final = 0.0005  # of the step's seconds
_BARS: Final = "·▁▂▃▄▅▆▇█"  # the first for nothing at all


class Repeated(NamedTuple):
    """Operations of one kind that are computed again.

    Attributes:
        kind: what they are called.
        times: how often one of them is computed again.
        forward: how many of them the forward has.
        seconds: of computing them again.
    """

    kind: str
    times: int
    forward: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The order in which the operations of one forward and backward run.

    Attributes:
        graph: the operations and storages of the step.
        answer: the order and how good it is.
        budget: bytes that were given.
        check: that computing again changes nothing, on the model's own blocks; None where it was
            not asked for.
        install: lets a model follow the schedule; None for a schedule of a graph alone.
    """

    graph: Graph
    answer: Answer
    budget: int
    check: BlockCheck | None = None
    install: Callable[[nn.Module], None] | None = dataclasses.field(
        default=None, repr=False, compare=False
    )

    @property
    def path(self) -> str:
        """``captured``: forward and backward are graphs that follow the schedule."""
        return "captured"

    @property
    def why(self) -> str:
        """Why the step is not captured: it is."""
        return ""

    def apply(self, model: nn.Module) -> None:
        """Let a model follow the schedule, in place; `remat.remove` undoes it.

        Args:
            model: as it was when the schedule was made.

        Raises:
            RefusedError: it is fitted already, or the schedule is of a graph alone.
        """
        if self.install is None:
            raise RefusedError(
                "this schedule is of a graph alone.",
                hint="take one that remat.schedule made for the model.",
            )
        self.install(model)

    @property
    def order(self) -> tuple[int, ...]:
        """Indices of operations as they run; one that occurs again is computed again."""
        return self.answer.order

    @property
    def peak(self) -> int:
        """Most bytes at one time above parameters, buffers and the batch, gradients included."""
        return self.answer.peak

    @cached_property
    def plain(self) -> Simulation:
        """The step that computes nothing twice."""
        return simulate(self.graph, self.graph.plain)

    @cached_property
    def run(self) -> Simulation:
        """The step in this order."""
        return simulate(self.graph, self.order)

    @property
    def overhead(self) -> float:
        """Seconds of computing again, as a share of those of the step without."""
        return relative_gap(self.answer.seconds, self.graph.seconds)

    @property
    def lower_bound(self) -> float:
        """Seconds that no order within the budget stays under."""
        return self.answer.bound

    @property
    def gap(self) -> float:
        """How much longer the step takes than the lower bound, as a share of it."""
        return self.answer.gap

    def repeated(self) -> Iterator[Repeated]:
        """Yield what is computed again, by kind of operation; what takes longest comes first."""
        times = Counter(self.order)
        forward = self.graph.nodes[: self.graph.border]
        kinds = Counter(node.kind for node in forward)
        calls: Counter[str] = Counter()
        seconds: dict[str, float] = {}
        for index, node in enumerate(forward):
            again = times[index] - 1
            if again > 0:
                calls[node.kind] += again
                seconds[node.kind] = seconds.get(node.kind, 0.0) + again * node.seconds
        for kind, taken in sorted(seconds.items(), key=lambda row: (-row[1], row[0])):
            yield Repeated(kind, calls[kind], kinds[kind], taken)

    def places(self, count: int = _PLACES) -> tuple[Place, ...]:
        """Return how often each stretch of the forward is computed again.

        Args:
            count: stretches of equal time that the forward is cut into.
        """
        return places(self.graph, self.order, count)

    def table(self) -> str:
        """Return what the schedule costs, and what is computed again where, as text."""
        figures = self._figures()
        width = max(len(name) for name, _ in figures)
        lines = [f"{name:<{width}}  {words}" for name, words in figures]
        kinds = self._kinds()
        if not kinds:
            return "\n".join(lines)
        heads = ("computed again", "times", "in the forward", "of the step")
        columns = list(zip(heads, *kinds, strict=True))
        widths = [max(map(len, column)) for column in columns]
        lines.append("")
        for row in (heads, *kinds):
            numbers = (cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))
            lines.append("  ".join((row[0].ljust(widths[0]), *numbers)))
        lines += ["", f"along the forward  {self._bars()}", _legend(self.places())]
        return "\n".join(lines)

    def _figures(self) -> list[tuple[str, str]]:
        share = self.peak / self.plain.peak if self.plain.peak else 1.0
        least = relative_gap(self.lower_bound, self.graph.seconds)
        again = f"{self.overhead:.1%} of the step"
        if self.overhead:
            again += f" (at least {least:.1%} in that budget)"
        return [
            ("budget", format_bytes(self.budget)),
            ("peak", f"{format_bytes(self.peak)}, {share:.0%} of {format_bytes(self.plain.peak)}"),
            ("kept for backward", format_bytes(self.graph.sizes(self.run.kept))),
            ("computed again", again),
            ("found by", _SOLVERS.get(self.answer.solver, self.answer.solver) + self._unfinished),
            *([] if self.check is None else [("self-check", str(self.check))]),
        ]

    @property
    def _unfinished(self) -> str:
        return "" if self.answer.complete else ", until its time was up"

    def _kinds(self) -> list[tuple[str, str, str, str]]:
        whole = self.graph.seconds or 1.0
        rows = list(self.repeated())
        small = [row for row in rows if row.seconds / whole < _SMALL]
        if len(small) > 1:  # those that take next to nothing share a line
            own = [sum(column) for column in zip(*(row[1:] for row in small), strict=True)]
            others = Repeated(f"{len(small)} other kinds", int(own[0]), int(own[1]), own[2])
            rows = [*(row for row in rows if row not in small), others]
        return [
            (row.kind, str(row.times), str(row.forward), f"{row.seconds / whole:.1%}")
            for row in rows
        ]

    def _bars(self) -> str:
        shares = [place.share for place in self.places()]
        top = max(1.0, *shares)
        return "".join(_BARS[math.ceil(share / top * (len(_BARS) - 1) - 1e-9)] for share in shares)

    def to_json(self) -> str:
        """Return the figures, both steps over time and what is computed again, as JSON text.

        Times over the step are in seconds from the border between forward and backward. With
        costs in FLOPs, all seconds are FLOPs.
        """
        steps = {"plain": self.graph.plain, "scheduled": self.order}
        data = {
            "schema": SCHEMA,
            "budget": self.budget,
            "peak": self.peak,
            "plain_peak": self.plain.peak,
            "kept": self.graph.sizes(self.run.kept),
            "seconds": self.answer.seconds,
            "plain_seconds": self.graph.seconds,
            "bound_seconds": self.lower_bound,
            "solver": self.answer.solver,
            "complete": self.answer.complete,
            "kinds": [row._asdict() for row in self.repeated()],
            "places": [dataclasses.asdict(place) for place in self.places()],
            "timeline": {
                name: dataclasses.asdict(timeline(self.graph, order))
                for name, order in steps.items()
            },
        }
        return json.dumps(data, separators=(",", ":"), allow_nan=False)

    def _repr_html_(self) -> str:
        figures = [[name.capitalize(), words] for name, words in self._figures()]
        parts: list[Html] = [table("Schedule", ["Figure", "Value"], figures, inline=True)]
        if kinds := self._kinds():
            heads = ["Computed again", "Times", "In the forward", "Of the step"]
            caption = f"Along the forward: {self._bars()}"
            parts.append(table(caption, heads, kinds, numbers=(1, 2, 3), inline=True))
        return joined(parts)


_SOLVERS: Final = {"none": "nobody: the plain step fits"}


def _legend(found: tuple[Place, ...]) -> str:
    most = max(1.0, *(place.share for place in found))
    return f"{_BARS[0]} kept, {_BARS[-1]} computed again {most:.3g} x, start to end of the forward"
