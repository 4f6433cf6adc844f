"""What may be kept and what computed again, found by trying everything."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from shoestring.activations.remat.graph import Graph


class Tried(NamedTuple):
    """A choice: bytes kept, seconds of computing again, nodes that run after the border."""

    saved: int
    seconds: float
    recomputed: frozenset[int]


def all_choices(graph: Graph) -> Iterator[Tried]:
    """Yield each set of nodes that may run after the border, with the least bytes and seconds.

    For each set all sets of values to keep are tried, and all sets of nodes to leave out of the
    forward.
    """
    made = [v for v, maker in enumerate(graph.maker) if 0 <= maker < graph.border]
    backward = range(graph.border + 1, len(graph.nodes))
    for again in _subsets(k for k in range(graph.border) if graph.nodes[k].repeatable):
        runs = [*again, *backward]
        read = {v for k in runs for v in graph.nodes[k].reads} | graph.results
        if any(read.isdisjoint(graph.nodes[k].makes) for k in again):
            continue  # a node runs after the border for what is read there
        remade = {v for k in again for v in graph.nodes[k].makes}
        there = remade | graph.held | {v for v, m in enumerate(graph.maker) if m >= graph.border}
        saved = min(graph.sizes(kept) for kept in _subsets(made) if read <= there | set(kept))
        seconds = min(
            sum(graph.nodes[k].seconds for k in again if k not in late)
            for late in _subsets(again)
            if _runs_without(graph, set(late))
        )
        yield Tried(saved, seconds, frozenset(again))


def lower_corners(choices: Iterable[Tried]) -> list[tuple[int, float]]:
    """Return the corners of the lower left hull, by rising seconds: no chord lies below them."""
    points = sorted({(c.saved, c.seconds) for c in choices})
    front = [p for p in points if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points)]
    corners = [
        (s, t)
        for s, t in front
        if not any(
            (s - a) * (d - b) <= (t - b) * (c - a)  # on or above the chord from (a, b) to (c, d)
            for (a, b), (c, d) in itertools.combinations(front, 2)
            if a < s < c
        )
    ]
    return sorted(corners, key=lambda p: (p[1], -p[0]))


def fastest_order(graph: Graph, budget: int) -> float:
    """Return the seconds of the fastest of all orders within a budget; infinity if there is none.

    A shortest way through (nodes that have run, values that are there). Any value may be dropped
    at any time. What draws random numbers and what backward never needs runs before the border.
    """
    needed = set(graph.results)
    for k in reversed(range(len(graph.nodes))):
        if k > graph.border or (k < graph.border and not needed.isdisjoint(graph.nodes[k].makes)):
            needed.update(graph.nodes[k].reads)
    early = {
        k
        for k, node in enumerate(graph.nodes[: graph.border])
        if not node.repeatable or needed.isdisjoint(node.makes)
    }
    start: tuple[int, int] = (0, 0)
    best, queue = {start: 0.0}, [(0.0, start)]
    while queue:
        seconds, state = heapq.heappop(queue)
        if seconds > best[state]:
            continue
        done, there = state
        if done == (1 << len(graph.nodes)) - 1 and all(there >> v & 1 for v in graph.results):
            return seconds
        for cost, after in _moves(graph, done, there, budget, early):
            if seconds + cost < best.get(after, float("inf")):
                best[after] = seconds + cost
                heapq.heappush(queue, (seconds + cost, after))
    return float("inf")


def _moves(
    graph: Graph, done: int, there: int, budget: int, early: set[int]
) -> Iterator[tuple[float, tuple[int, int]]]:
    bytes_there = graph.sizes([v for v in range(len(graph.values)) if there >> v & 1])
    for value in range(len(graph.values)):
        if there >> value & 1:
            yield 0.0, (done, there & ~(1 << value))
    for k, node in enumerate(graph.nodes):
        if done >> k & 1 and (k >= graph.border or not node.repeatable):
            continue
        if k > graph.border and not done >> graph.border & 1:
            continue
        if k in early and done >> graph.border & 1:
            continue
        if any(v not in graph.held and not there >> v & 1 for v in node.reads):
            continue
        new = [v for v in node.makes if not there >> v & 1]
        if bytes_there + graph.sizes(new) + node.workspace <= budget:
            yield node.seconds, (done | 1 << k, there | sum(1 << v for v in new))


def _subsets(items: Iterable[int]) -> Iterator[tuple[int, ...]]:
    pool = list(items)
    return itertools.chain.from_iterable(
        itertools.combinations(pool, count) for count in range(len(pool) + 1)
    )


def _runs_without(graph: Graph, late: set[int]) -> bool:
    missing = {v for k in late for v in graph.nodes[k].makes}
    return all(
        missing.isdisjoint(graph.nodes[k].reads) for k in range(graph.border + 1) if k not in late
    )
