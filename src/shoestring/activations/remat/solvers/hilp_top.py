"""Make few nodes of many: clusters of a forward with their backward, and ways to run each."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from shoestring.activations.remat.graph import Graph, Node, Value
from shoestring.activations.remat.solvers.closure_order import (
    closure_cost,
    closure_order,
)

Points: TypeAlias = Callable[[Graph], Iterable[AbstractSet[int]]]
CLUSTERS = 10
OPTIONS = 3


class Mode(NamedTuple):
    """A way to run a node of the top.

    Attributes:
        seconds: that it takes.
        workspace: bytes beside what the top counts.
        reads: values of the top that must be there; some of the node's.
        makes: values of the top that it makes; some of the node's.
        first: nodes of the whole graph, when they have never been run.
        again: the same when what cannot be made again is there.
    """

    seconds: float
    workspace: int
    reads: frozenset[int]
    makes: frozenset[int]
    first: tuple[int, ...]
    again: tuple[int, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Top:
    """A small graph that stands for a large one.

    Attributes:
        whole: the large graph.
        graph: the small one. Its nodes take the seconds and the workspace of their least mode,
            read and make what any mode does.
        modes: by node, the ways to run it.
        pinned: bytes that no node of the small graph counts: they are taken to be there always.
        edges: where the clusters of the forward begin, and its end.
        solved: how many clusters were worked out; the others are like one of them.
    """

    whole: Graph
    graph: Graph
    modes: tuple[tuple[Mode, ...], ...]
    pinned: int
    edges: tuple[int, ...]
    solved: int

    def order(self, runs: Sequence[tuple[int, int]]) -> tuple[int, ...]:
        """Return the order of the large graph that runs nodes of the small one.

        Args:
            runs: nodes, each with a mode.
        """
        seen: set[int] = set()
        order: list[int] = []
        for node, mode in runs:
            way = self.modes[node][mode]
            order += way.again if node in seen else way.first
            seen.add(node)
        return tuple(order)


def coarsen(
    graph: Graph, points: Points, *, clusters: int = CLUSTERS, options: int = OPTIONS
) -> Top:
    """Cut a graph into clusters, where few bytes go on, and work out how to run each.

    Args:
        graph: the operations.
        points: gives for a cluster's graph the sets of nodes that backward may run again.
        clusters: most clusters of the forward; each makes two nodes, and the border is one.
        options: most ways of keeping something inside a cluster; with one, all that backward
            reads is a value of the top, kept or not by itself.

    Returns:
        The small graph.
    """
    return _Coarsening(graph, points, clusters, options).top()


def forward_edges(graph: Graph, clusters: int) -> tuple[int, ...]:
    """Return where to cut a forward: neighbours are merged, the smallest interface first.

    Two neighbours are worth the less apart, the smaller

        (bytes that go in + bytes that go out) (number of nodes)^(1/2)

    Args:
        graph: the operations.
        clusters: most parts.

    Returns:
        The first node of each part, and the border.

    Source: Shilova et al., "HiRemate", ICML 2025, algorithm 1 (bottom to top).
    """
    crossing = np.zeros(graph.border + 2, np.int64)
    for value, maker in enumerate(graph.maker):
        if 0 <= maker < graph.border:
            ends = [reader for reader in graph.readers[value] if reader <= graph.border]
            crossing[maker + 1] += graph.values[value].size
            crossing[max(ends, default=maker) + 1] -= graph.values[value].size
    crossing = np.cumsum(crossing)
    edges = list(range(graph.border + 1))
    largest = max(2, math.ceil(2 * graph.border / max(clusters, 1)))
    while len(edges) - 1 > clusters:
        scores = [
            (
                right - left > largest,
                float(crossing[left] + crossing[right]) * math.sqrt(right - left),
                at,
            )
            for at, (left, right) in enumerate(zip(edges, edges[2:], strict=False), start=1)
        ]
        del edges[min(scores)[2]]
    return tuple(edges)


class _Coarsening:
    """Works out the top of one graph."""

    def __init__(self, graph: Graph, points: Points, clusters: int, options: int) -> None:
        self.graph = graph
        self._points = points
        self._options = options
        self.edges = forward_edges(graph, clusters)
        self._count = len(self.edges) - 1
        self.part = self._parts()
        self._found: dict[Graph, list[frozenset[int]]] = {}
        # what a cluster of several nodes cannot make again stays as long as it likes
        self._fixed = self._pinned_values()
        self._names: dict[tuple[object, ...], int] = {}
        self._bundle: dict[int, int] = {}
        self._sizes: list[int] = []
        self._tokens: dict[int, int] = {}
        self._results: set[int] = set()

    def top(self) -> Top:
        graph = self.graph
        for value in range(len(graph.values)):
            self._put_in_bundle(value)
        nodes: list[Node] = []
        modes: list[tuple[Mode, ...]] = []
        backs: list[tuple[Mode, ...]] = []
        for cluster in range(self._count):
            forward, back = self._ways(cluster)
            backs.append(back)
            modes.append(forward)
        border = (graph.border,)
        modes.append((self._mode(border, border, frozenset(), frozenset()),))
        modes += reversed(backs)
        for at, ways in enumerate(modes):
            nodes.append(self._node(at, ways))
        small = Graph(
            tuple(nodes),
            tuple(Value("", size) for size in self._sizes),
            self._count,
            frozenset(),
            frozenset(self._results),
        )
        pinned = graph.sizes(self._fixed)
        return Top(graph, small, tuple(modes), pinned, self.edges, len(self._found))

    # --- parts ------------------------------------------------------------------------------

    def _parts(self) -> list[int]:
        """Return the node of the top that each node of the graph belongs to."""
        graph, count = self.graph, self._count
        parts = np.searchsorted(self.edges, np.arange(graph.border), "right") - 1
        own = list[int]()
        for node in graph.nodes[graph.border + 1 :]:
            makers = [graph.maker[v] for v in node.reads if 0 <= graph.maker[v] < graph.border]
            last = own[-1] if own else count - 1
            own.append(int(parts[max(makers)]) if makers else last)
        backward = np.zeros(len(own), np.int64)
        touched: NDArray[np.int64] = np.array(own, np.int64)
        start = 0
        for cluster in reversed(range(1, count)):
            # from `place` on nothing of this cluster or a later one is left, or little
            early = np.concatenate([[0], np.cumsum(touched < cluster)])
            late = np.cumsum(np.concatenate([touched >= cluster, [False]])[::-1])[::-1]
            start = max(start, int((early + late).argmin()))
            backward[start:] += 1
        return [*parts.tolist(), count, *(count + 1 + backward).tolist()]

    def _pinned_values(self) -> frozenset[int]:
        graph, fixed = self.graph, set[int]()
        for first, last in zip(self.edges, self.edges[1:], strict=False):
            drawn = [k for k in range(first, last) if not graph.nodes[k].repeatable]
            if len(drawn) < last - first:
                fixed.update(v for k in drawn for v in graph.nodes[k].makes if graph.readers[v])
        return frozenset(fixed)

    def _back_of(self, cluster: int) -> int:
        return 2 * self._count - cluster

    def _put_in_bundle(self, value: int) -> None:
        """Values that one node makes and the same nodes read are one value of the top."""
        graph = self.graph
        if value in graph.held:
            return
        maker = self.part[graph.maker[value]]
        readers = frozenset(self.part[reader] for reader in graph.readers[value]) - {maker}
        if value in self._fixed:  # costs nothing here, but must have been made before the border
            bundle = self._names.setdefault(("fixed", maker), len(self._names))
            self._sizes += [0] * (bundle == len(self._sizes))
            self._tokens[value] = bundle
            return
        result = value in graph.results
        inside = maker < self._count and readers <= {self._back_of(maker)}
        if not result and (not readers or (inside and self._options > 1)):
            return
        own = value if self._options == 1 else -1
        key = (maker, readers, result, own)
        bundle = self._names.setdefault(key, len(self._names))
        if bundle == len(self._sizes):
            self._sizes.append(0)
        self._sizes[bundle] += graph.values[value].size
        self._bundle[value] = bundle
        if result:
            self._results.add(bundle)

    # --- ways -------------------------------------------------------------------------------

    def _ways(self, cluster: int) -> tuple[tuple[Mode, ...], tuple[Mode, ...]]:
        """Return the ways to run a cluster's forward and its backward."""
        forward = range(self.edges[cluster], self.edges[cluster + 1])
        backward = [k for k, part in enumerate(self.part) if part == self._back_of(cluster)]
        never = frozenset[int]()
        chosen = [never] if self._options == 1 else self._choices(forward, backward)
        backs: dict[frozenset[int], tuple[int, ...]] = {}
        for nodes in chosen:
            back, kept = self._backward(forward, backward, nodes)
            if kept not in backs or self._seconds(back) < self._seconds(backs[kept]):
                backs[kept] = back
        keeps = dict.fromkeys([*backs, never] if self._options > 1 else backs)
        ran = {k for back in backs.values() for k in back}
        ran.update(k for kept in keeps for k in self._running(forward, kept, first=True))
        idle = [k for k in forward if k not in ran]  # nothing reads what it makes, but it runs
        forwards = []
        for kept in keeps:
            first = tuple(sorted({*self._running(forward, kept, first=True), *idle}))
            again = self._running(forward, kept, first=False)
            forwards.append(self._mode(first, again, kept, self._phantom(cluster, kept)))
        ways = [
            self._mode(back, back, never, self._phantom(cluster, kept))
            for kept, back in backs.items()
        ]
        return tuple(forwards), tuple(ways)

    def _choices(self, forward: range, backward: Sequence[int]) -> list[frozenset[int]]:
        """Return sets of nodes that backward runs again: none, all, and some between."""
        local = self._local(forward, backward)
        if local not in self._found:
            every = local.repeatable
            given = {frozenset(nodes) for nodes in self._points(local)} - {frozenset(), every}
            byte = {nodes: closure_cost(local, nodes)[0] for nodes in given}
            ordered = sorted(given, key=lambda nodes: (byte[nodes], sorted(nodes)))
            most = min(self._options - 2, len(ordered))
            picked = [ordered[(2 * k + 1) * len(ordered) // (2 * most)] for k in range(most)]
            self._found[local] = [frozenset[int](), every, *picked]
        return [frozenset(forward[k] for k in nodes) for nodes in self._found[local]]

    def _local(self, forward: range, backward: Sequence[int]) -> Graph:
        """Return a cluster as a graph of its own; what the top keeps costs nothing in it."""
        graph = self.graph
        inside = [*forward, *backward]
        made = {v for k in inside for v in graph.nodes[k].makes}
        names: dict[int, int] = {}
        for node in inside:
            for value in (*graph.nodes[node].reads, *graph.nodes[node].makes):
                names.setdefault(value, len(names))
        nodes = [self._renamed(node, names) for node in inside]
        outputs = [v for k in forward for v in graph.nodes[k].makes if v in self._bundle]
        turn = Node("", 0.0, tuple(names[v] for v in outputs if v in names), ())
        nodes.insert(len(forward), turn)
        free = self._fixed | self._bundle.keys() | graph.held
        sizes = [Value("", 0 if v in free else graph.values[v].size) for v in names]
        held = frozenset(names[v] for v in names if v not in made)
        return Graph(tuple(nodes), tuple(sizes), len(forward), held, frozenset())

    def _renamed(self, node: int, names: dict[int, int]) -> Node:
        own = self.graph.nodes[node]
        reads = tuple(names[v] for v in own.reads)
        return own._replace(name="", reads=reads, makes=tuple(names[v] for v in own.makes))

    def _backward(
        self, forward: range, backward: Sequence[int], again: frozenset[int]
    ) -> tuple[tuple[int, ...], frozenset[int]]:
        """Return a backward that runs some of its forward again, and what that needs kept."""
        local = self._local(forward, backward)
        inside = [*forward, self.graph.border, *backward]
        # what the top keeps is there: to make it again is another run of the forward
        free = {k for k in again if not self._gives(k)}
        order = closure_order(local, {k - forward.start for k in free} & local.repeatable)
        back = tuple(inside[k] for k in order[order.index(local.border) + 1 :])
        made: set[int] = set()
        kept: set[int] = set()
        for node in back:
            kept.update(v for v in self.graph.nodes[node].reads if v not in made)
            made.update(self.graph.nodes[node].makes)
        hidden = (v for v in kept if self.graph.maker[v] in forward and v not in self._bundle)
        return back, frozenset(hidden) - self._fixed

    def _gives(self, node: int) -> bool:
        makes = self.graph.nodes[node].makes
        return all(v in self._bundle or not self.graph.readers[v] for v in makes)

    def _phantom(self, cluster: int, kept: frozenset[int]) -> frozenset[int]:
        if not kept:
            return frozenset()
        key = ("phantom", cluster, kept)
        phantom = self._names.setdefault(key, len(self._names))
        if phantom == len(self._sizes):
            self._sizes.append(self.graph.sizes(kept))
        return frozenset({phantom})

    def _running(self, forward: range, kept: AbstractSet[int], *, first: bool) -> tuple[int, ...]:
        """Return the nodes of a forward that leaves some values, besides those of the top."""
        made = {v for k in forward for v in self.graph.nodes[k].makes}
        ends = {*kept, *made.intersection(self._bundle)}
        if first:
            return self._needed(forward, ends | (made & self._fixed), frozenset())
        return self._needed(forward, ends, self._fixed)

    def _seconds(self, nodes: Iterable[int]) -> float:
        return sum(self.graph.nodes[node].seconds for node in nodes)

    def _needed(
        self, forward: range, values: AbstractSet[int], there: AbstractSet[int]
    ) -> tuple[int, ...]:
        wanted, needed = set(values) - there, []
        for node in reversed(forward):
            if not wanted.isdisjoint(self.graph.nodes[node].makes):
                needed.append(node)
                wanted.update(v for v in self.graph.nodes[node].reads if v not in there)
        return tuple(reversed(needed))

    def _mode(
        self,
        first: tuple[int, ...],
        again: tuple[int, ...],
        kept: frozenset[int],
        phantom: frozenset[int],
    ) -> Mode:
        """Return what a run takes: a forward leaves `kept` as the phantom, a backward reads it."""
        graph = self.graph
        made: set[int] = set()
        outer: set[int] = set()
        for node in first:
            outer.update(v for v in graph.nodes[node].reads if v not in made)
            made.update(graph.nodes[node].makes)
        forward = all(node < graph.border for node in first)
        # what a backward makes again it does not leave to others
        left = {
            v for v in made if v in self._bundle and (forward or graph.maker[v] >= graph.border)
        }
        reads = {self._bundle[v] for v in outer if v in self._bundle}
        reads |= {self._tokens[v] for v in outer if v in self._tokens}
        makes = {self._bundle[v] for v in left}
        makes |= {self._tokens[v] for v in made if v in self._tokens and forward}
        reads |= set(self._tokens.values()) if first == (graph.border,) else set()
        reads -= makes
        workspace = self._workspace(first, left | kept)
        seconds = sum(graph.nodes[node].seconds for node in first)
        if forward:
            makes |= phantom
            return Mode(seconds, workspace, frozenset(reads), frozenset(makes), first, again)
        reads |= phantom
        return Mode(seconds, workspace, frozenset(reads), frozenset(makes), first, again)

    def _workspace(self, order: Sequence[int], left: AbstractSet[int]) -> int:
        """Return the bytes that a run needs beside what it is given and what it leaves."""
        graph = self.graph
        last: dict[int, int] = {}
        for place, node in enumerate(order):
            for value in (*graph.nodes[node].reads, *graph.nodes[node].makes):
                last[value] = place
        own: dict[int, int] = {}
        resident = peak = 0
        for place, node in enumerate(order):
            for value in graph.nodes[node].makes:
                if value not in own and value not in self._fixed:
                    own[value] = graph.values[value].size
                    resident += own[value]
            peak = max(peak, resident + graph.nodes[node].workspace)
            for value in (*graph.nodes[node].reads, *graph.nodes[node].makes):
                if value in own and last[value] == place and value not in left:
                    resident -= own.pop(value)
        return max(0, peak - graph.sizes(left))

    def _node(self, at: int, ways: Sequence[Mode]) -> Node:
        reads = frozenset[int]().union(*(way.reads for way in ways))
        makes = frozenset[int]().union(*(way.makes for way in ways))
        can = at >= self._count or any(
            self.graph.nodes[k].repeatable for k in range(self.edges[at], self.edges[at + 1])
        )
        return Node(
            str(at),
            min(way.seconds for way in ways),
            tuple(sorted(reads)),
            tuple(sorted(makes)),
            min(way.workspace for way in ways),
            can,
        )
