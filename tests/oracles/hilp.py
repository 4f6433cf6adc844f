"""A search through all ways to run the small graph of clusters."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

from shoestring.activations.remat.solvers.hilp_top import Top


class _State(NamedTuple):
    stage: int
    place: int
    there: frozenset[int]
    ran: frozenset[int]


def cheapest_runs(top: Top, budget: int) -> float:
    """Return the least seconds of staged runs within a budget; infinity if there are none.

    Stage t ends with node t, but for nodes that may repeat: they may run later. Before it run
    nodes of the forward, in order. At any time any value may be dropped.
    """
    graph, count = top.graph, len(top.graph.nodes)
    start = _State(0, -1, frozenset(), frozenset())
    seconds = {start: 0.0}
    numbers = itertools.count()
    queue = [(0.0, next(numbers), start)]
    while queue:
        spent, _, state = heapq.heappop(queue)
        if spent > seconds[state]:
            continue
        if state.stage == count:
            if graph.results <= state.there and len(state.ran) == count:
                return spent
            continue
        for cost, after in _moves(top, budget, state):
            if spent + cost < seconds.get(after, math.inf):
                seconds[after] = spent + cost
                heapq.heappush(queue, (spent + cost, next(numbers), after))
    return math.inf


def _moves(top: Top, budget: int, state: _State) -> Iterator[tuple[float, _State]]:
    graph, stage = top.graph, state.stage
    for value in state.there:
        yield 0.0, state._replace(there=state.there - {value})
    late = stage < graph.border and graph.nodes[stage].repeatable
    if late or stage in state.ran:
        yield 0.0, state._replace(stage=stage + 1, place=-1)
    for node in range(state.place + 1, stage + 1):
        again = node < graph.border and graph.nodes[node].repeatable
        if node != stage and not again:
            continue
        for mode in top.modes[node]:
            there = state.there | mode.makes
            if mode.reads <= state.there and graph.sizes(there) + mode.workspace <= budget:
                yield mode.seconds, _State(stage, node, there, state.ran | {node})
