"""The plain meaning of an order of operations, and searches that try all orders."""

from __future__ import annotations

import dataclasses
import heapq
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from shoestring.activations.remat.graph import Graph


@dataclasses.dataclass(frozen=True)
class Copy:
    """One storage that a node made: there from position `first` to `last`, both included."""

    value: int
    first: int
    last: int


def copies(graph: Graph, order: Sequence[int]) -> list[Copy]:
    """Return each copy of each value; a copy ends at its last read, a result never."""
    found = []
    for start, node in enumerate(order):
        for value in graph.nodes[node].makes:
            end = start
            for later in range(start + 1, len(order)):
                if value in graph.nodes[order[later]].makes:
                    break
                if value in graph.nodes[order[later]].reads:
                    end = later
            else:
                end = len(order) if value in graph.results else end
            found.append(Copy(value, start, end))
    return found


def live(graph: Graph, order: Sequence[int]) -> list[set[int]]:
    """Return the values that are there at each position, while that node runs."""
    every = copies(graph, order)
    return [{c.value for c in every if c.first <= p <= c.last} for p in range(len(order))]


def bytes_during(graph: Graph, order: Sequence[int]) -> list[int]:
    """Return the bytes at each position, while that node runs."""
    return [
        sum(graph.values[value].size for value in there) + graph.nodes[node].workspace
        for there, node in zip(live(graph, order), order, strict=True)
    ]


def bytes_after(graph: Graph, order: Sequence[int]) -> list[int]:
    """Return the bytes of what outlives each position."""
    every = copies(graph, order)
    return [
        sum(graph.values[c.value].size for c in every if c.first <= p < c.last)
        for p in range(len(order))
    ]


def kept(graph: Graph, order: Sequence[int]) -> frozenset[int]:
    """Return the values that are made before the border and read at it or after it."""
    border = list(order).index(graph.border)
    return frozenset(c.value for c in copies(graph, order) if c.first < border <= c.last)


# --- all orders -----------------------------------------------------------------------------


class _State(NamedTuple):
    """What has run, what is there, and, in staged orders, how far the stage has come."""

    done: frozenset[int]
    there: frozenset[int]
    stage: int
    last: int


def cheapest_order(graph: Graph, budget: int, *, staged: bool) -> tuple[int, ...] | None:
    """Return an order of least seconds within a budget, None if none fits: for small graphs.

    Dijkstra over what has run and what is there. A move drops a value or runs a node; border
    and backward keep their order. In a staged order stage t may run nodes up to t, in their
    order, and those that may not be repeated, or are no forward, only in their own stage.
    """
    start = _State(frozenset(), frozenset(), 0, -1)
    best = {start: 0.0}
    came: dict[_State, tuple[_State, int]] = {}
    queue = [(0.0, 0, start)]
    ticket = itertools.count(1)
    while queue:
        seconds, _, state = heapq.heappop(queue)
        if seconds > best[state]:
            continue
        if len(state.done) == len(graph.nodes) and graph.results <= state.there:
            return tuple(_way(came, state))
        for node, after in _moves(graph, budget, state, staged=staged):
            cost = seconds + (graph.nodes[node].seconds if node >= 0 else 0.0)
            if cost < best.get(after, float("inf")):
                best[after] = cost
                came[after] = (state, node)
                heapq.heappush(queue, (cost, next(ticket), after))
    return None


def _moves(
    graph: Graph, budget: int, state: _State, *, staged: bool
) -> Iterator[tuple[int, _State]]:
    """Return the states after one move, with the node that runs, -1 for none."""
    for value in state.there:
        yield -1, state._replace(there=state.there - {value})
    if staged and _repeats(graph, state.stage):
        yield -1, state._replace(stage=state.stage + 1, last=-1)
    for i in filter(lambda i: _may_run(graph, i, state), range(len(graph.nodes))):
        there = state.there.union(graph.nodes[i].makes)
        if graph.sizes(tuple(there)) + graph.nodes[i].workspace > budget:
            continue
        after = _State(state.done | {i}, there, state.stage, state.last)
        if not staged:
            yield i, after
        elif i == state.stage:
            yield i, after._replace(stage=i + 1, last=-1)
        elif state.last < i < state.stage and _repeats(graph, i):
            yield i, after._replace(last=i)


def _repeats(graph: Graph, i: int) -> bool:
    return i < graph.border and graph.nodes[i].repeatable


def _may_run(graph: Graph, i: int, state: _State) -> bool:
    node = graph.nodes[i]
    fresh = i not in state.done or (i < graph.border and node.repeatable)
    backward = graph.border in state.done
    in_turn = i - 1 in state.done if i > graph.border else node.repeatable or not backward
    return fresh and in_turn and set(node.reads) <= state.there | graph.held


def _way(came: dict[_State, tuple[_State, int]], state: _State) -> list[int]:
    """Return the nodes that ran on the way to a state."""
    way = []
    while state in came:
        state, node = came[state]
        if node >= 0:
            way.append(node)
    return way[::-1]


# --- dynamic rematerialisation --------------------------------------------------------------


class SlowDtr:
    """Dynamic rematerialisation by recursion; each score is taken anew."""

    def __init__(self, graph: Graph, budget: int) -> None:
        self.graph, self.budget = graph, budget
        self.there: set[int] = set()
        self.made: set[int] = set()
        self.touched: dict[int, int] = {}
        self.locked: list[int] = []
        self.order: list[int] = []

    def run(self) -> tuple[int, ...] | None:
        """Return the order, None where it does not fit."""
        try:
            for index, node in enumerate(self.graph.nodes):
                self.compute(index, now=index)
                self.there -= {v for v in node.reads if self.ours(v) and self.unread(v, index)}
                self.there -= {v for v in self.there if not self.needed(v, index)}
        except MemoryError:
            return None
        return tuple(self.order)

    def ours(self, value: int) -> bool:
        """Whether the value may be evicted."""
        maker = self.graph.maker[value]
        can = 0 <= maker < self.graph.border and self.graph.nodes[maker].repeatable
        return can and value not in self.graph.results and self.graph.values[value].size > 0

    def unread(self, value: int, now: int) -> bool:
        """Whether the plain order does not read the value after now."""
        return all(reader <= now for reader in self.graph.readers[value])

    def needed(self, value: int, now: int) -> bool:
        """Whether the value can be read after now, by what runs then or runs again."""
        if value in self.graph.results or not self.unread(value, now):
            return True
        again = [r for r in self.graph.readers[value] if r < self.graph.border]
        return any(
            self.needed(made, now)
            for reader in again
            if self.graph.nodes[reader].repeatable
            for made in self.graph.nodes[reader].makes
            if made not in self.graph.results
        )

    def gone(self, value: int, now: int) -> bool:
        """Whether the value was evicted and can still be needed."""
        return value in self.made - self.there and self.needed(value, now - 1)

    def compute(self, index: int, *, now: int) -> None:
        """Run a node, first those that make what it reads."""
        node = self.graph.nodes[index]
        self.locked += node.reads
        for value in node.reads:
            if value not in self.there | self.graph.held:
                self.compute(self.graph.maker[value], now=now)
        new = [value for value in node.makes if value not in self.there]
        while self.graph.sizes((*self.there, *new)) + node.workspace > self.budget:
            self.evict(node.makes, now)
        self.order.append(index)
        if len(self.order) > 20 * len(self.graph.nodes):
            raise MemoryError
        self.there.update(new)
        self.made.update(new)
        self.touched |= dict.fromkeys((*node.reads, *node.makes), len(self.order))
        for value in node.reads:
            self.locked.remove(value)
        for value in new:
            if self.ours(value) and self.unread(value, now - 1) and value not in self.locked:
                self.there.discard(value)

    def evict(self, making: Sequence[int], now: int) -> None:
        """Drop the value of the least score; what is being made would be there again at once."""
        can = [v for v in sorted(self.there) if self.ours(v) and v not in (*self.locked, *making)]
        if not can:
            raise MemoryError
        self.there.discard(min(can, key=lambda value: self.score(value, now)))

    def score(self, value: int, now: int) -> float:
        """Return cost of the evicted neighbourhood / (size * operations since the last use)."""
        makers = {self.graph.maker[value]}
        makers |= self.above(value, now) | self.below(value, now)
        stale = len(self.order) + 1 - self.touched[value]
        seconds = sum(self.graph.nodes[maker].seconds for maker in makers)
        return seconds / (self.graph.values[value].size * stale)

    def above(self, value: int, now: int) -> set[int]:
        """Return the makers of evicted values that the value is computed from."""
        found: set[int] = set()
        for read in self.graph.nodes[self.graph.maker[value]].reads:
            if self.gone(read, now):
                found |= {self.graph.maker[read]} | self.above(read, now)
        return found

    def below(self, value: int, now: int) -> set[int]:
        """Return the makers of evicted values that are computed from the value."""
        found: set[int] = set()
        for reader in self.graph.readers[value]:
            for made in self.graph.nodes[reader].makes:
                if self.gone(made, now):
                    found |= {reader} | self.below(made, now)
        return found
