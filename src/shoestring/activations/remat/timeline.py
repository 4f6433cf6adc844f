"""A step over time: what runs when, how many bytes are there, and what runs again."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from shoestring.activations.remat.graph import Graph
from shoestring.activations.remat.simulate import simulate


@dataclasses.dataclass(frozen=True, slots=True)
class Timeline:
    """An order over time; the border between forward and backward is at 0.

    Attributes:
        starts: seconds at which each operation begins; negative in forward.
        ends: seconds at which it ends.
        bytes: that are there while it runs.
        again: whether it has run before.
    """

    starts: tuple[float, ...]
    ends: tuple[float, ...]
    bytes: tuple[int, ...]
    again: tuple[bool, ...]


def timeline(graph: Graph, order: Sequence[int]) -> Timeline:
    """Return an order over time.

    Args:
        graph: the operations.
        order: indices of nodes; one that occurs again is computed again.

    Raises:
        InvalidOrderError: the order cannot run.

    Example:
        >>> from shoestring.activations.remat.graph import Graph, Node, Value
        >>> nodes = (Node("f", 1.0, (), (0,)), Node("loss", 0.0, (0,), (1,)))
        >>> graph = Graph(nodes, (Value("a", 64), Value("da", 64)), 1, frozenset(), frozenset({1}))
        >>> timeline(graph, graph.plain).starts
        (-1.0, 0.0)
    """
    run = simulate(graph, order)
    forward = list(order).index(graph.border)
    # Summed from the border outwards, so that nothing is left over at 0.
    early = [0.0]
    for index in reversed(order[:forward]):
        early.append(early[-1] - graph.nodes[index].seconds)
    late = [0.0]
    for index in order[forward:]:
        late.append(late[-1] + graph.nodes[index].seconds)
    times = [*reversed(early), *late[1:]]
    seen: set[int] = set()
    again = []
    for index in order:
        again.append(index in seen)
        seen.add(index)
    return Timeline(tuple(times[:-1]), tuple(times[1:]), run.bytes_during, tuple(again))


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """A stretch of the forward.

    Attributes:
        seconds: that its operations take once.
        again: seconds of computing them again.
    """

    seconds: float
    again: float

    @property
    def share(self) -> float:
        """How often it is computed again: 1 where all of it is computed once more."""
        return self.again / self.seconds if self.seconds > 0 else 0.0


def places(graph: Graph, order: Sequence[int], count: int) -> tuple[Place, ...]:
    """Return how often each stretch of the forward is computed again.

    Args:
        graph: the operations.
        order: indices of nodes.
        count: stretches of equal time that the forward is cut into.
    """
    times = [0] * len(graph.nodes)
    for index in order:
        times[index] += 1
    whole = sum(node.seconds for node in graph.nodes[: graph.border])
    once, again = [0.0] * count, [0.0] * count
    begin = 0.0
    for node, repeats in zip(graph.nodes[: graph.border], times, strict=False):
        end = begin + node.seconds
        for k in range(_at(begin, whole, count), _at(end, whole, count) + 1):
            inside = min(end, whole * (k + 1) / count) - max(begin, whole * k / count)
            once[k] += max(inside, 0.0)
            again[k] += max(inside, 0.0) * (repeats - 1)
        begin = end
    return tuple(Place(a, b) for a, b in zip(once, again, strict=True))


def _at(seconds: float, whole: float, count: int) -> int:
    return min(int(count * seconds / whole), count - 1) if whole > 0 else 0
