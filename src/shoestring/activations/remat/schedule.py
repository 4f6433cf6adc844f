"""A schedule: what a step keeps, what it computes again, and what that costs."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from functools import cached_property

from shoestring.activations.remat.answer import Answer, relative_gap
from shoestring.activations.remat.graph import Graph
from shoestring.activations.remat.simulate import Simulation, simulate
from shoestring.core.units import format_bytes


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The order in which the operations of one forward and backward run.

    Attributes:
        graph: the operations and storages of the step.
        answer: the order and how good it is.
        budget: bytes that were given.
    """

    graph: Graph
    answer: Answer
    budget: int

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

    def repeated(self) -> Iterator[tuple[str, int, float]]:
        """Yield what is computed again: operation, times, and seconds of all of them.

        Operations of one name count together; those that take longest come first.
        """
        times = Counter(self.order)
        calls: Counter[str] = Counter()
        seconds: dict[str, float] = {}
        for index, count in times.items():
            if count > 1:
                node = self.graph.nodes[index]
                calls[node.kind] += count - 1
                again = (count - 1) * node.seconds
                seconds[node.kind] = seconds.get(node.kind, 0.0) + again
        for kind, taken in sorted(seconds.items(), key=lambda row: -row[1]):
            yield kind, calls[kind], taken

    def table(self) -> str:
        """Return what the schedule costs and what is computed again, as text."""
        least = relative_gap(self.lower_bound, self.graph.seconds)
        rows = [
            ("budget", format_bytes(self.budget)),
            ("peak", f"{format_bytes(self.peak)} of {format_bytes(self.plain.peak)} plain"),
            ("kept for backward", format_bytes(self.graph.sizes(self.run.kept))),
            ("computed again", f"{self.overhead:.1%} of the step"),
            ("at least", f"{least:.1%} of it in that budget"),
            ("found by", self.answer.solver + ("" if self.answer.complete else ", time was up")),
        ]
        rows += [
            (kind, f"{count} x, {seconds / self.graph.seconds:.1%}")
            for kind, count, seconds in self.repeated()
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {text}" for name, text in rows)
