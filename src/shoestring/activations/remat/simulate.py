"""What an order of operations costs: its true peak and its seconds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from shoestring.activations.remat.graph import Graph


class InvalidOrderError(ValueError):
    """An order that cannot run: a value is read before it is there, or a rule is broken."""


@dataclasses.dataclass(frozen=True, slots=True)
class Simulation:
    """What a step in some order takes.

    Attributes:
        peak: most bytes at one time, workspaces and results included, held values left out.
        at: position in the order where the peak lies.
        bytes_during: bytes at each position, while that node runs.
        bytes_after: bytes at each position, when what is not needed again has been freed.
        kept: values that cross the border, from forward to backward.
        seconds: of all computations.
    """

    peak: int
    at: int
    bytes_during: tuple[int, ...]
    bytes_after: tuple[int, ...]
    kept: frozenset[int]
    seconds: float


def simulate(graph: Graph, order: Sequence[int]) -> Simulation:
    """Run an order without computing anything.

    A value is freed as soon as nothing reads it before it is computed again: keeping it longer
    would only cost memory. With R_p the bytes that are there before position p, the bytes while
    node k runs there are

        R_p + (what k makes and is not there) + workspace of k.

    Args:
        graph: the operations.
        order: indices of nodes; a node of the forward may occur several times.

    Returns:
        The peak in bytes, where it is, and what crosses the border.

    Raises:
        InvalidOrderError: the order cannot run.

    Example:
        >>> from shoestring.activations.remat.graph import Graph, Node, Value
        >>> nodes = (Node("f", 1.0, (), (0,)), Node("loss", 0.0, (0,), (1,)))
        >>> graph = Graph(nodes, (Value("a", 64), Value("da", 64)), 1, frozenset(), frozenset({1}))
        >>> simulate(graph, graph.plain).peak
        128
    """
    check_order(graph, order)
    deaths = last_uses(graph, order)
    resident, during, after = 0, [], []
    kept: frozenset[int] = frozenset()
    alive: set[int] = set()
    for position, index in enumerate(order):
        node = graph.nodes[index]
        if index == graph.border:
            kept = frozenset(alive)
        resident += graph.sizes(node.makes)
        during.append(resident + node.workspace)
        resident -= graph.sizes(deaths[position])
        after.append(resident)
        alive.update(node.makes)
        alive.difference_update(deaths[position])
    peak = max(during)
    return Simulation(
        peak=peak,
        at=during.index(peak),
        bytes_during=tuple(during),
        bytes_after=tuple(after),
        kept=kept,
        seconds=sum(graph.nodes[index].seconds for index in order),
    )


def last_uses(graph: Graph, order: Sequence[int]) -> list[tuple[int, ...]]:
    """Return, by position, the values that nothing reads again before they are computed again.

    Args:
        graph: the operations.
        order: indices of nodes.
    """
    needed = set(graph.results)
    deaths: list[tuple[int, ...]] = []
    for index in reversed(order):
        node = graph.nodes[index]
        dying = []
        for value in node.makes:
            if value not in needed:
                dying.append(value)
            needed.discard(value)
        for value in dict.fromkeys(node.reads):
            if value not in needed and value not in graph.held:
                dying.append(value)
                needed.add(value)
        deaths.append(tuple(dying))
    deaths.reverse()
    return deaths


def check_order(graph: Graph, order: Sequence[int]) -> None:
    """Raise where an order cannot run.

    Args:
        graph: the operations.
        order: indices of nodes.

    Raises:
        InvalidOrderError: a value is read before it is there, a node is left out, or one runs
            where it must not.
    """
    there = set(graph.held)
    times = [0] * len(graph.nodes)
    for position, index in enumerate(order):
        node = graph.nodes[index]
        times[index] += 1
        if missing := [value for value in node.reads if value not in there]:
            name = graph.values[missing[0]].name
            raise InvalidOrderError(f"{node.name} at {position} reads {name}, which is not there")
        if times[index] > 1 and (index >= graph.border or not node.repeatable):
            raise InvalidOrderError(f"{node.name} at {position} may not be computed again")
        if index < graph.border and times[graph.border] and not node.repeatable:
            raise InvalidOrderError(f"{node.name} at {position} must run before the border")
        if index > graph.border and not times[graph.border]:
            raise InvalidOrderError(f"{node.name} at {position} runs before the border")
        there.update(node.makes)
    if never := [node.name for node, count in zip(graph.nodes, times, strict=True) if not count]:
        raise InvalidOrderError(f"{never[0]} is never computed")
