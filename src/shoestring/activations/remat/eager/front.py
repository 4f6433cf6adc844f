"""Choices of what a step computes again: each slower than the last, and smaller."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Collection, Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np

from shoestring.activations.remat.eager.predict import PlainStep
from shoestring.activations.remat.eager.sites import Site, sites_of
from shoestring.activations.remat.eager.step_graph import step_graph
from shoestring.activations.remat.graph import Graph
from shoestring.activations.remat.solvers.closure import sweep
from shoestring.core.machine import Machine
from shoestring.core.trace import Kind, Phase, Trace

TRIED: Final = 16
"""Choices of one family whose peaks are looked at; half as many in a long step."""

LONG: Final = 3000
"""Operations from which on a step is long."""

WORTH: Final = 0.99
"""A choice that costs more must take a peak below this share of what those before it reach."""

_STRIDES: Final = (1, 2, 4)
_HARDLY: Final = 1.05
_ROUNDS: Final = 4
_AWAY: Final = 0.1
"""What the bytes of a value count that is kept across no peak."""

_GIVEN: Final = frozenset({Kind.PARAMETER, Kind.BUFFER, Kind.OPTIMIZER, Kind.BATCH})


class Choice(NamedTuple):
    """What runs again, and what that comes to.

    Attributes:
        seconds: of running again.
        alone: peak of what the step holds beside what is given and gradients, in bytes.
        peak: of the whole step, in bytes.
        place: where the plain step is when it is reached, as the index of an operation.
        sites: of the operations that run again.
    """

    seconds: float
    alone: int
    peak: int
    place: int
    sites: frozenset[Site]


def front(trace: Trace, machine: Machine) -> list[Choice]:
    """Return choices of which each is slower than the last, and smaller.

    Smaller is a choice if the peak of the step falls, or if it stays and would fall were gradients
    not kept: another technique may release them. The bytes kept are not the peak: while a part of
    the forward is computed again, all of it is there. So the front of bytes against seconds is
    taken several times: of the step as it is; with the values fixed that cross certain places of
    the forward, where little is alive, so that what lies between two such places is computed again
    by itself; and with the bytes alone that are kept across the peaks met so far.

    Args:
        trace: the plain step.
        machine: tells seconds.
    """
    return search(trace, machine).front()


def smallest(trace: Trace, machine: Machine) -> Choice:
    """Return the smallest of those choices that compute again all that may be.

    It looks at one choice for each way to fix values, so it is quick.

    Args:
        trace: the plain step.
        machine: tells seconds.
    """
    found = Search(trace, machine)
    for graph in _families(found.step.graph, long=found.long):
        found.look_at(graph.repeatable)
    return min([found.plain, *found.choices()], key=lambda choice: choice.peak)


def search(trace: Trace, machine: Machine) -> Search:
    """Look at choices of what to compute again, as `front` does.

    Args:
        trace: the plain step.
        machine: tells seconds.
    """
    found = Search(trace, machine)
    for graph in _families(found.step.graph, long=found.long):
        found.walk(graph)
    for _ in range(1 if found.long else _ROUNDS):
        found.walk(found.weighted())
    return found


class Search:
    """Choices that were looked at, and the peaks that they met.

    Args:
        trace: the plain step.
        machine: tells seconds.

    Attributes:
        step: the graph that choices are made in.
        long: whether the step is long, so that fewer choices are looked at.
        plain: nothing runs again.
    """

    def __init__(self, trace: Trace, machine: Machine) -> None:
        self.step = step_graph(trace, machine)
        self.long = len(trace.ops) >= LONG
        self._trace = trace
        self._plain_step = PlainStep(trace)
        self._seconds = [machine.seconds(op) for op in trace.ops]
        self._sites = sites_of(trace)
        fixed = {*_GIVEN, Kind.GRADIENT}
        self._alone = np.array([s.kind not in fixed for s in trace.storages], dtype=np.int64)
        self._all = np.ones_like(self._alone)
        self.plain = self._priced(frozenset())
        self._found: dict[frozenset[int], Choice] = {}
        self._peaks: list[int] = []

    def walk(self, graph: Graph) -> None:
        """Look at choices spread along the front of a graph.

        Args:
            graph: of the step, its values weighted or fixed.
        """
        swept = sweep(graph)
        saved = np.array(swept.saved)
        tried = TRIED // 2 if self.long else TRIED
        wanted = np.linspace(saved[0], saved[-1], tried + 1)[1:]
        for point in np.unique(np.searchsorted(-saved, -wanted)).tolist():
            self.look_at(swept.recomputed(point))

    def look_at(self, nodes: frozenset[int]) -> None:
        """Look at one choice.

        Args:
            nodes: of the graph; they run again.
        """
        if nodes and nodes not in self._found:
            self._found[nodes] = self._priced(nodes)

    def _priced(self, nodes: frozenset[int]) -> Choice:
        chosen = [index for node in nodes for index in self.step.ops[node]]
        change = self._plain_step.run_again(chosen)
        timeline = self._plain_step.timeline(change, self._all)
        at = int(timeline.argmax())
        places = self._plain_step.places(change)[: len(self._seconds)]
        return Choice(
            seconds=sum(self._seconds[maker] for _, maker in change.inserted),
            alone=int(self._plain_step.timeline(change, self._alone).max()),
            peak=int(timeline[at]),
            place=int(np.searchsorted(places, at)),
            sites=frozenset(self._sites[index] for index in chosen),
        )

    def choices(self) -> Collection[Choice]:
        """Return all that was looked at."""
        return self._found.values()

    def bound(self, peak: int) -> float:
        """Return seconds of running again that no choice stays under within a peak.

        While the forward ends and the backward begins, all that is kept is there.

        Args:
            peak: most bytes above what is given, gradients included.

        Returns:
            Infinity if nothing keeps so few.
        """
        return sweep(self.step.graph).bound(peak)

    def weighted(self) -> Graph:
        """Return the graph in which a value counts as often as it is kept across a peak.

        The peaks are those of the smallest choices so far; what is kept across none counts little.
        """
        least = min(self._found.values(), key=lambda c: c.peak, default=self.plain)
        self._peaks.append(least.place)
        values = [
            value._replace(size=round(value.size * (_AWAY + self._crossings(s))))
            for value, s in zip(self.step.graph.values, self.step.storages, strict=True)
        ]
        return dataclasses.replace(self.step.graph, values=tuple(values))

    def _crossings(self, s: int) -> int:
        """Return at how many of the peaks a storage is there only because it is kept."""
        uses, phases = self._plain_step.uses[s], self._plain_step.phases
        forward = [i for i in uses if phases[i] is Phase.FORWARD]
        later = self._plain_step.late_uses(s)
        if not later:
            return 0
        last = max(forward, default=self._trace.storages[s].birth)
        return sum(last < place < later[0] for place in self._peaks)

    def front(self) -> list[Choice]:
        """Return the choices that are worth their seconds."""
        chosen: list[Choice] = []
        alone, peak = self.plain.alone, self.plain.peak
        for choice in sorted(self._found.values()):
            less = choice.alone < WORTH * alone and choice.peak <= peak
            if less or choice.peak < WORTH * peak:
                chosen.append(choice)
                alone, peak = min(alone, choice.alone), min(peak, choice.peak)
        return chosen


def _families(graph: Graph, *, long: bool) -> Iterator[Graph]:
    yield graph
    cuts = _cuts(graph)
    while len(lower := _lowest(graph, cuts)) < len(cuts):
        if not long:
            yield _fixed(graph, cuts)
        cuts = lower
    for stride in _STRIDES[: 2 if long else None]:
        if len(cuts) > stride:
            yield _fixed(graph, cuts[::stride])


def _lowest(graph: Graph, cuts: Sequence[frozenset[int]]) -> list[frozenset[int]]:
    """Return the places where hardly more is alive than at the next ones before and after."""
    sizes = [graph.sizes(cut) for cut in cuts]
    around = zip([math.inf, *sizes], sizes, [*sizes[1:], math.inf], strict=False)
    least = [size <= _HARDLY * min(before, after) for before, size, after in around]
    return [cut for cut, is_least in zip(cuts, least, strict=True) if is_least]


def _cuts(graph: Graph) -> list[frozenset[int]]:
    """Return the values that cross each place of the forward where least is alive nearby.

    Alive is what an operation of the forward has yet to read.
    """
    last = {v: max(k for k in readers if k < graph.border) for v, readers in _forward(graph)}
    alive: set[int] = set()
    crossing: list[frozenset[int]] = []
    for index in range(graph.border):
        alive.update(v for v in graph.nodes[index].makes if v in last)
        alive -= {v for v in graph.nodes[index].reads if last.get(v) == index}
        crossing.append(frozenset(alive))
    sizes = [graph.sizes(values) for values in crossing]
    runs = [list(run) for _, run in itertools.groupby(range(graph.border), sizes.__getitem__)]
    return [
        crossing[run[-1]]
        for before, run, after in zip(runs, runs[1:], runs[2:], strict=False)
        if sizes[before[0]] > sizes[run[0]] < sizes[after[0]]
    ]


def _forward(graph: Graph) -> Iterator[tuple[int, Sequence[int]]]:
    """Yield the values that operations of the forward read."""
    for value, readers in enumerate(graph.readers):
        if any(k < graph.border for k in readers):
            yield value, readers


def _fixed(graph: Graph, cuts: Sequence[frozenset[int]]) -> Graph:
    """Return the graph in which the values that cross some places are kept."""
    makers = {graph.maker[value] for cut in cuts for value in cut}
    nodes = [
        node._replace(repeatable=node.repeatable and index not in makers)
        for index, node in enumerate(graph.nodes)
    ]
    return dataclasses.replace(graph, nodes=tuple(nodes))
