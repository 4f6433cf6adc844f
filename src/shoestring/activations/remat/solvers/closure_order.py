"""Orders in which each operation of the forward runs at most once more: what they cost."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from shoestring.activations.remat.graph import Graph


def needed_values(graph: Graph) -> frozenset[int]:
    """Return the values of the forward that must be there after the border, whatever happens.

    Backward reads them, or they stay when the step has ended. What the border itself reads is
    not among them: it is there, and may go at once.

    Args:
        graph: the operations.
    """
    read = {value for node in graph.nodes[graph.border + 1 :] for value in node.reads}
    return frozenset(v for v in read | graph.results if 0 <= graph.maker[v] < graph.border)


def useful_nodes(graph: Graph, recomputed: AbstractSet[int]) -> frozenset[int]:
    """Return those of some nodes whose values something reads after the border.

    Args:
        graph: the operations.
        recomputed: nodes of the forward that shall run after the border.

    Raises:
        ValueError: one of the nodes is not of the forward, or may not be computed again.
    """
    needed = set(needed_values(graph))
    useful = []
    for index in sorted(recomputed, reverse=True):
        if not 0 <= index < graph.border:
            raise ValueError(f"node {index} is no node of the forward: only those run again")
        node = graph.nodes[index]
        if not node.repeatable:
            raise ValueError(f"node {index}, {node.name}, may not be computed again")
        if not needed.isdisjoint(node.makes):
            useful.append(index)
            needed.update(node.reads)
    return frozenset(useful)


def forward_nodes(graph: Graph, recomputed: AbstractSet[int]) -> tuple[int, ...]:
    """Return the nodes that run before the border, in order.

    A recomputed node that neither the border nor another node of the forward needs is missing:
    it runs in backward only. So it is delayed, and its seconds are paid once.

    Args:
        graph: the operations.
        recomputed: nodes of the forward that run after the border.
    """
    wanted = set(graph.nodes[graph.border].reads)
    running = []
    for index in reversed(range(graph.border)):
        node = graph.nodes[index]
        if index not in recomputed or not wanted.isdisjoint(node.makes):
            running.append(index)
            wanted.update(node.reads)
    return tuple(reversed(running))


def closure_order(graph: Graph, recomputed: AbstractSet[int]) -> tuple[int, ...]:
    """Return the order that runs some nodes of the forward again, each as late as possible.

    The forward runs, then the border, then backward; before each node of backward runs what it
    needs, directly or through other recomputed nodes, and what has not run again yet. Nodes that
    nothing needs after the border are not run again.

    Args:
        graph: the operations.
        recomputed: nodes of the forward that run after the border.

    Returns:
        Indices of nodes.

    Raises:
        ValueError: one of the nodes is not of the forward, or may not be computed again.

    Example:
        >>> from shoestring.activations.remat.graph import Graph, Node, Value
        >>> nodes = (
        ...     Node("f", 1.0, (), (0,)),
        ...     Node("g", 1.0, (0,), (1,)),
        ...     Node("loss", 0.0, (1,), (2,)),
        ...     Node("b", 2.0, (0, 2), (3,)),
        ... )
        >>> values = tuple(Value(name, 64) for name in ("x", "y", "dy", "dx"))
        >>> graph = Graph(nodes, values, 2, frozenset(), frozenset({3}))
        >>> closure_order(graph, frozenset({0, 1}))
        (0, 1, 2, 0, 3)
    """
    waiting = set(useful_nodes(graph, recomputed))
    order = [*forward_nodes(graph, waiting), graph.border]
    for index in range(graph.border + 1, len(graph.nodes)):
        order += _called(graph, graph.nodes[index].reads, waiting)
        order.append(index)
    order += _called(graph, tuple(graph.results), waiting)
    return tuple(order)


def closure_cost(graph: Graph, recomputed: AbstractSet[int]) -> tuple[int, float]:
    """Return the bytes kept across the border and the seconds of computing again.

    The bytes are those of the values that are read after the border, or stay at the end, and
    are not made again; what only the border reads is not counted.

    Args:
        graph: the operations.
        recomputed: nodes of the forward that run after the border.

    Raises:
        ValueError: one of the nodes is not of the forward, or may not be computed again.
    """
    again = useful_nodes(graph, recomputed)
    read = set(needed_values(graph))
    for index in again:
        read.update(graph.nodes[index].reads)
    kept = (v for v in read if graph.maker[v] >= 0 and graph.maker[v] not in again)
    twice = again.intersection(forward_nodes(graph, again))
    return graph.sizes(kept), sum(graph.nodes[index].seconds for index in sorted(twice))


def _called(graph: Graph, values: tuple[int, ...], waiting: set[int]) -> list[int]:
    """Take out of `waiting` what must run so that the values are there; return it in order."""
    called, open_values = [], list(values)
    while open_values:
        maker = graph.maker[open_values.pop()]
        if maker in waiting:
            waiting.remove(maker)
            called.append(maker)
            open_values += graph.nodes[maker].reads
    return sorted(called)
