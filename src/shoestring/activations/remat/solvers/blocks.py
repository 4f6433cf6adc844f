"""Cut a graph into a chain of blocks, each a forward with the backward that belongs to it."""

from __future__ import annotations

import dataclasses
import heapq
import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from shoestring.activations.remat.graph import Graph, Node, Value
from shoestring.activations.remat.simulate import simulate

MOST = 64
LONG = 0.25
SMALL = 0.05
_NONE = -1
# a segment's shape: the numbers of its nodes, and where in it or before it they read
_Signature: TypeAlias = tuple[tuple[object, ...], ...]


class NotAChainError(ValueError):
    """A graph that cannot be cut into a chain; the message says where."""


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """A link of the chain, with indices of its own, so that equal blocks are equal.

    Attributes:
        graph: the forward of the block, a border, and its backward. In the last block the
            border is the graph's own; in the others it stands for all later blocks. What the
            block reads from elsewhere is held.
        nodes: the node of the whole graph for each of the block's; -1 for a border made up.
        values: the value of the whole graph for each of the block's.
        inputs: what it reads from the block before: one value, or none.
        outputs: what the next block reads: one value, or none.
        shared: what it makes and never again, because later blocks read it throughout or it
            stays when the step has ended.
        arrives: gradients that are there when its backward starts.
        leaves: gradients that are there for the blocks before when its backward has ended.
        clings: whether the block before reads `inputs` too.
        last: whether it is the last block.
        group: equal blocks have the same number.
    """

    graph: Graph
    nodes: tuple[int, ...]
    values: tuple[int, ...]
    inputs: frozenset[int]
    outputs: frozenset[int]
    shared: frozenset[int]
    arrives: frozenset[int]
    leaves: frozenset[int]
    clings: bool
    last: bool
    group: int

    @property
    def anonymous(self) -> tuple[object, ...]:
        """What equal blocks have in common."""
        sets = (self.inputs, self.outputs, self.shared, self.arrives, self.leaves)
        return (self.graph, *sets, self.clings, self.last)

    @property
    def pinned(self) -> frozenset[int]:
        """What stays from the first forward to the backward: it cannot be made again."""
        drawn = {
            value
            for node in self.graph.nodes[: self.graph.border]
            if not node.repeatable
            for value in node.makes
            if self.graph.readers[value]
        }
        return self.shared | drawn


class _Cut(NamedTuple):
    """Where forward and backward can be cut.

    Attributes:
        place: the first node of the forward behind it.
        value: what crosses it besides what is shared; -1 for nothing.
        low: least place in backward.
        high: greatest place in backward.
    """

    place: int
    value: int
    low: int
    high: int


def cut(graph: Graph, *, most: int = MOST, long: float = LONG, small: float = SMALL) -> list[Block]:
    """Cut a graph where one value is all that the rest of the forward reads.

    Values that live long and are small do not count: attention masks, rotary angles, position
    ids, the encoder's output. They are held from where they are made to their block's backward.
    A cut must also part backward: what reads the later forward comes before what reads the
    earlier. Where the order of backward does not, the order that mirrors the forward is tried.

    Args:
        graph: the operations.
        most: most blocks; neighbours are merged, so that few blocks differ.
        long: share of the forward's nodes that a shared value lives through.
        small: most bytes of all shared values, as a share of the plain peak.

    Returns:
        At least two blocks, in order of the forward.

    Raises:
        NotAChainError: there is no place to cut.
    """
    shared = _shared(graph, long, small)
    backward = tuple(range(graph.border + 1, len(graph.nodes)))
    places = _places(graph, shared)
    cuts = _cuts(graph, shared, places, backward)
    if len(cuts) < len(places):
        mirrored = _mirrored(graph)
        again = _cuts(graph, shared, places, mirrored)
        if len(again) > len(cuts):
            backward, cuts = mirrored, again
    # between two cuts that one value crosses nothing is made for later: the last is enough
    cuts = list({cut.value if cut.value != _NONE else -cut.place: cut for cut in cuts}.values())
    if not cuts:
        raise NotAChainError(_reason(graph, shared, places))
    shared, chosen = _settled(graph, shared, _merge(graph, cuts, most), backward)
    return _blocks(graph, shared, chosen, backward)


def _lives(graph: Graph) -> list[tuple[int, int]]:
    """Return the maker of each value of the forward and the last of forward that reads it."""
    lives = []
    for value, maker in enumerate(graph.maker):
        if 0 <= maker < graph.border:
            readers = [reader for reader in graph.readers[value] if reader <= graph.border]
            lives.append((value, max(readers, default=maker)))
    return lives


def _shared(graph: Graph, long: float, small: float) -> frozenset[int]:
    forced = {v for v in graph.results if 0 <= graph.maker[v] < graph.border}
    room = small * simulate(graph, graph.plain).peak
    lasting = sorted(
        (graph.values[value].size, value)
        for value, end in _lives(graph)
        if end - graph.maker[value] >= long * graph.border and value not in forced
    )
    for size, value in lasting:
        room -= size
        if room < 0:
            break
        forced.add(value)
    return frozenset(forced)


def _places(graph: Graph, shared: frozenset[int]) -> list[tuple[int, int]]:
    """Return the places of the forward that at most one value crosses, each with that value."""
    count = np.zeros(graph.border + 2, np.int64)
    which = np.zeros(graph.border + 2, np.int64)  # the sum of what crosses: itself, if it is one
    for value, end in _lives(graph):
        if value not in shared:
            start = graph.maker[value] + 1
            count[start] += 1
            count[end + 1] -= 1
            which[start] += value
            which[end + 1] -= value
    crossing, names = np.cumsum(count), np.cumsum(which)
    return [
        (place, int(names[place]) if crossing[place] else _NONE)
        for place in range(1, graph.border + 1)
        if crossing[place] <= 1
    ]


def _cuts(
    graph: Graph,
    shared: frozenset[int],
    places: Sequence[tuple[int, int]],
    backward: Sequence[int],
) -> list[_Cut]:
    """Return the places where backward can be cut as well."""
    position = {node: at for at, node in enumerate(backward)}
    end = len(backward)
    last = np.full(graph.border + 1, -1, np.int64)  # by maker: where its values are last read
    first: list[list[tuple[int, int]]] = [[] for _ in range(graph.border)]
    for value, _ in _lives(graph):
        reads = [position[node] for node in graph.readers[value] if node in position]
        if reads:
            maker = graph.maker[value]
            last[maker] = max(last[maker], *reads)
            if value not in shared:  # what is shared goes with its maker's backward, not sooner
                first[maker].append((min(reads), value))
    later = np.maximum.accumulate(last[::-1])[::-1]
    found, made = [], 0
    earliest: list[tuple[int, int]] = []  # the two values made so far that are read first
    for place, value in places:
        for maker in range(made, place):
            earliest = sorted([*earliest, *first[maker]])[:2]
        made = place
        high = min((at for at, read in earliest if read != value), default=end)
        low = int(later[place]) + 1
        if low <= high:
            # best, what crosses is read as the later block's input, which is there anyway
            readers = graph.readers[value] if value != _NONE else ()
            read = 1 + max((position.get(node, -1) for node in readers), default=-1)
            found.append(_Cut(place, value, read if low < read <= high else low, high))
    return found


def _settled(
    graph: Graph, shared: frozenset[int], cuts: list[_Cut], backward: Sequence[int]
) -> tuple[frozenset[int], list[_Cut]]:
    """Return shared values and cuts when only those are shared that the chosen cuts need.

    What crosses no cut belongs to its block alone, and what crosses one cut alone is what the
    next block reads. Nothing changes where backward could not be cut then.
    """
    ends = dict(_lives(graph))
    crossed = {
        value: [c.place for c in cuts if graph.maker[value] < c.place <= ends[value]]
        for value in shared
    }
    company = Counter(itertools.chain.from_iterable(crossed.values()))
    company.update(cut.place for cut in cuts if cut.value != _NONE)
    alone = {
        places[0]: value
        for value, places in crossed.items()
        if len(places) == 1 and company[places[0]] == 1 and value not in graph.results
    }
    needed = frozenset(
        value
        for value, places in crossed.items()
        if value in graph.results or (places and alone.get(places[0]) != value)
    )
    places = [(cut.place, alone.get(cut.place, cut.value)) for cut in cuts]
    found = _cuts(graph, needed, places, backward)
    return (needed, found) if len(found) == len(cuts) else (shared, cuts)


def _mirrored(graph: Graph) -> tuple[int, ...]:
    """Return backward in the order in which its nodes touch the forward, the latest first."""
    border, count = graph.border, len(graph.nodes)
    touch = [_NONE] * count
    for node in reversed(range(border + 1, count)):
        makers = [graph.maker[v] for v in graph.nodes[node].reads]
        after = (r for value in graph.nodes[node].makes for r in graph.readers[value])
        own = [maker for maker in makers if 0 <= maker < border]
        touch[node] = max([_NONE, *own, *(touch[reader] for reader in after)])
    before = [
        {graph.maker[v] for v in node.reads if graph.maker[v] > border} for node in graph.nodes
    ]
    for node in range(border + 1, count):
        if touch[node] == _NONE and before[node]:  # a gradient that nothing reads: at once
            touch[node] = min(touch[maker] for maker in before[node])
    waiting = [len(makers) for makers in before]
    ready = [(-touch[node], node) for node in range(border + 1, count) if not waiting[node]]
    heapq.heapify(ready)
    order = []
    while ready:
        _, node = heapq.heappop(ready)
        order.append(node)
        for reader in {r for value in graph.nodes[node].makes for r in graph.readers[value]}:
            waiting[reader] -= 1
            if not waiting[reader]:
                heapq.heappush(ready, (-touch[reader], reader))
    return tuple(order)


def _reason(graph: Graph, shared: frozenset[int], places: Sequence[tuple[int, int]]) -> str:
    if places:
        place, value = places[len(places) // 2]
        name = graph.values[value].name if value != _NONE else "nothing"
        return (
            f"the graph is no chain: before {graph.nodes[place].name} only {name} goes on to the "
            "rest of the forward, but backward mixes what lies before and behind"
        )
    if not graph.border:
        return "the graph is no chain: its forward has no operation"
    crossing: dict[int, list[int]] = {place: [] for place in range(1, graph.border + 1)}
    for value, end in _lives(graph):
        if value not in shared:
            for place in range(graph.maker[value] + 1, end + 1):
                crossing[place].append(value)
    place = min(crossing, key=lambda p: (len(crossing[p]), graph.sizes(crossing[p])))
    names = ", ".join(graph.values[value].name for value in crossing[place][:4])
    return (
        f"the graph is no chain: even before {graph.nodes[place].name}, where fewest do, "
        f"{len(crossing[place])} values go on to the rest of the forward: {names}"
    )


def _merge(graph: Graph, cuts: Sequence[_Cut], most: int) -> list[_Cut]:
    """Leave out cuts until few blocks are left, and few of them differ.

    A block is closed when it has made so many bytes for backward. As it starts from nothing
    each time, equal layers are soon cut in equal ways. Of several limits that one is taken that
    leaves little to solve, and then that of the most blocks.
    """
    edges = [0, *(cut.place for cut in cuts), graph.border]
    weights = []
    for start, stop in itertools.pairwise(edges):
        made = {value for node in graph.nodes[start:stop] for value in node.makes}
        weights.append(graph.sizes([v for v in made if graph.readers[v][-1:] > (graph.border,)]))
    kinds: dict[_Signature, int] = {}
    segments = [
        kinds.setdefault(_signature(graph, start, stop), len(kinds))
        for start, stop in itertools.pairwise(edges)
    ]
    limit, limits = sum(weights) / max(2 * most, 1), [0.0]
    while limit < sum(weights):
        limits.append(limit)
        limit *= 1.25
    found: list[tuple[int, list[int]]] = []
    for limit in limits:
        ends = _closed(weights, limit)
        if 0 < len(ends) < most:
            parts = [0, *(end + 1 for end in ends), len(segments)]
            distinct = {tuple(segments[a:b]): (a, b) for a, b in itertools.pairwise(parts)}
            found.append((sum(edges[b] - edges[a] for a, b in distinct.values()), ends))
    if not found:
        return [cuts[len(cuts) // 2]]
    least = min(work for work, _ in found)
    ends = max((ends for work, ends in found if work <= 1.5 * least), key=len)
    return [cuts[end] for end in ends]


def _closed(weights: Sequence[int], limit: float) -> list[int]:
    ends, weight = [], 0
    for segment, own in enumerate(weights[:-1]):
        weight += own
        if weight >= limit:
            ends.append(segment)
            weight = 0
    return ends


def _signature(graph: Graph, start: int, stop: int) -> _Signature:
    names: dict[int, int] = {}
    rows: list[tuple[object, ...]] = []
    for node in graph.nodes[start:stop]:
        reads = tuple(names.get(value, _NONE) for value in node.reads)
        for value in node.makes:
            names[value] = len(names)
        sizes = tuple(graph.values[value].size for value in node.makes)
        rows.append((node.seconds, node.workspace, node.repeatable, reads, sizes))
    return tuple(rows)


def _blocks(
    graph: Graph, shared: frozenset[int], cuts: Sequence[_Cut], backward: Sequence[int]
) -> list[Block]:
    waiting, position = _gradients(graph, backward)
    ends, start = [len(backward)], 0
    for cut in reversed(cuts):
        low = max(cut.low, start)
        start = low + int(waiting[low : cut.high + 1].argmin())
        ends.insert(1, start)
    # ends: where the backward of each block stops, and at last 0 where that of the last starts
    stops = [*ends[1:], 0]
    edges = [0, *(cut.place for cut in cuts), graph.border]
    crossing = [_crossing(graph, position, at) for at in stops[:-1]]
    builder = _Builder(graph, shared)
    blocks: list[Block] = []
    for at, (first, last) in enumerate(itertools.pairwise(edges)):
        blocks.append(
            builder.block(
                forward=range(first, last),
                backward=backward[stops[at] : ends[at]],
                inputs=_one(cuts[at - 1].value) if at else (),
                outputs=_one(cuts[at].value) if at < len(cuts) else (),
                arrives=crossing[at] if at < len(cuts) else (),
                leaves=crossing[at - 1] if at else (),
                clings=bool(at) and _reads(blocks[-1]),
                last=at == len(cuts),
            )
        )
    return blocks


def _one(value: int) -> tuple[int, ...]:
    return () if value == _NONE else (value,)


def _reads(block: Block) -> bool:
    """Return whether a block reads its own output."""
    inside = (node for at, node in enumerate(block.graph.nodes) if at != block.graph.border)
    return any(not block.outputs.isdisjoint(node.reads) for node in inside)


def _gradients(graph: Graph, backward: Sequence[int]) -> tuple[NDArray[np.int64], dict[int, int]]:
    """Return the bytes of gradients that cross each place of backward; where each node is."""
    position = {graph.border: -1} | {node: at for at, node in enumerate(backward)}
    steps = np.zeros(len(backward) + 2, np.int64)
    for value, maker in enumerate(graph.maker):
        if maker >= graph.border and value not in graph.results and graph.readers[value]:
            steps[position[maker] + 1] += graph.values[value].size
            end = max(position[reader] for reader in graph.readers[value])
            steps[end + 1] -= graph.values[value].size
    return np.cumsum(steps), position


def _crossing(graph: Graph, position: dict[int, int], place: int) -> tuple[int, ...]:
    return tuple(
        value
        for value, maker in enumerate(graph.maker)
        if maker >= graph.border
        and value not in graph.results
        and position[maker] < place
        and any(position[reader] >= place for reader in graph.readers[value])
    )


class _Builder:
    """Makes blocks with indices of their own, and numbers the groups of equal ones."""

    def __init__(self, graph: Graph, shared: frozenset[int]) -> None:
        self._graph = graph
        self._shared = shared
        self._groups: dict[tuple[object, ...], int] = {}

    def block(
        self,
        *,
        forward: range,
        backward: Sequence[int],
        inputs: tuple[int, ...],
        outputs: tuple[int, ...],
        arrives: tuple[int, ...],
        leaves: tuple[int, ...],
        clings: bool,
        last: bool,
    ) -> Block:
        """Return the block of some nodes of the whole graph."""
        whole = self._graph
        owned = [value for node in forward for value in whole.nodes[node].makes]
        shared = [value for value in owned if value in self._shared]
        border = whole.nodes[whole.border]
        if not last:
            border = Node("", 0.0, (*outputs, *shared), arrives)
        nodes = [
            *(whole.nodes[node] for node in forward),
            border,
            *(whole.nodes[node] for node in backward),
        ]
        local = _numbered(itertools.chain(inputs, *((*n.reads, *n.makes) for n in nodes)))
        made = {value for node in nodes for value in node.makes}
        counted = made.union(inputs)
        fixed = set(shared)
        graph = Graph(
            tuple(
                node._replace(
                    name="",
                    reads=tuple(local[value] for value in node.reads),
                    makes=tuple(local[value] for value in node.makes),
                    repeatable=node.repeatable and fixed.isdisjoint(node.makes),
                )
                for node in nodes
            ),
            tuple(Value("", whole.values[v].size if v in counted else 0) for v in local),
            len(forward),
            frozenset(local[value] for value in local if value not in made),
            frozenset(local[v] for v in made if v in whole.results or v in leaves),
        )
        block = Block(
            graph=graph,
            nodes=(*forward, whole.border if last else _NONE, *backward),
            values=tuple(local),
            inputs=frozenset(local[value] for value in inputs),
            outputs=frozenset(local[value] for value in outputs),
            shared=frozenset(local[value] for value in shared),
            arrives=frozenset(local[value] for value in arrives),
            leaves=frozenset(local[value] for value in leaves),
            clings=clings,
            last=last,
            group=0,
        )
        group = self._groups.setdefault(block.anonymous, len(self._groups))
        return dataclasses.replace(block, group=group)


def _numbered(values: Iterable[int]) -> dict[int, int]:
    numbers: dict[int, int] = {}
    for value in values:
        numbers.setdefault(value, len(numbers))
    return numbers
