"""Graphs of forward and backward that rematerialisation is tried on."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from hypothesis import strategies as st

from shoestring.activations.remat.graph import Graph, Node, Value


def differentiated(
    parents: Sequence[Sequence[int]],
    *,
    sizes: Sequence[int],
    seconds: Sequence[float],
    workspaces: Sequence[int] = (),
    random: frozenset[int] = frozenset(),
) -> Graph:
    """Return a forward and its backward.

    Forward node i reads its parents' values and makes value i. Its backward node reads the
    gradients of i's readers, the parents' values and its own, makes the gradient of i and takes
    twice the time. The border reads the last forward value. A parameter is held and read by
    all forward nodes; the gradient of node 0 is a result.
    """
    count = len(parents)
    children: list[list[int]] = [[] for _ in range(count)]
    for child, above in enumerate(parents):
        for parent in above:
            children[parent].append(child)
    workspaces = workspaces or [0] * count
    parameter = 2 * count + 1
    nodes = [
        Node(f"f{i}", seconds[i], (*parents[i], parameter), (i,), workspaces[i], i not in random)
        for i in range(count)
    ]
    loss = 2 * count  # the gradient of the last value
    nodes.append(Node("loss", 0.0, (count - 1,), (loss,)))
    for i in reversed(range(count)):
        above = [loss] if i == count - 1 else []
        grads = [count + child for child in children[i]]
        reads = tuple(dict.fromkeys((*above, *grads, *parents[i], i, parameter)))
        nodes.append(Node(f"b{i}", 2 * seconds[i], reads, (count + i,), workspaces[i]))
    values = [Value(f"x{i}", sizes[i]) for i in range(count)]
    values += [Value(f"dx{i}", sizes[i]) for i in range(count)]
    values += [Value("dloss", sizes[-1]), Value("w", 0)]
    graph = Graph(tuple(nodes), tuple(values), count, frozenset({parameter}), frozenset({count}))
    graph.check()
    return graph


def chain(count: int) -> Graph:
    """Return a chain of nodes that each take a second and a byte; nothing is random."""
    parents = [[i - 1] if i else [] for i in range(count)]
    return differentiated(parents, sizes=[1] * count, seconds=[1.0] * count)


@st.composite
def graphs(draw: st.DrawFn, *, least: int = 1, most: int = 6) -> Graph:
    """Draw a forward of any shape with its backward; every value is read by something."""
    count = draw(st.integers(least, most))
    parents: list[list[int]] = [[]]
    for node in range(1, count):
        above = draw(st.sets(st.integers(0, node - 1), max_size=3))
        parents.append(sorted(above | {node - 1}) if draw(st.booleans()) else sorted(above))
    read = set(itertools.chain.from_iterable(parents))
    parents[-1] = sorted({*parents[-1], *(i for i in range(count - 1) if i not in read)})
    sizes = [draw(st.integers(1, 9)) for _ in range(count)]
    seconds = [float(draw(st.integers(0, 9))) for _ in range(count)]
    workspaces = [draw(st.sampled_from([0, 0, 3])) for _ in range(count)]
    random = frozenset(i for i in range(count) if draw(st.integers(0, 4)) == 0)
    return differentiated(
        parents, sizes=sizes, seconds=seconds, workspaces=workspaces, random=random
    )


@st.composite
def sparse(draw: st.DrawFn, *, least: int = 1, most: int = 6) -> Graph:
    """Draw a graph as operations are: not all that forward makes is read by backward.

    Some forward nodes make a second value, which their own backward reads; some backward nodes
    do without values of the forward.
    """
    plain = draw(graphs(least=least, most=most))
    nodes, values = list(plain.nodes), list(plain.values)
    for i in range(plain.border):
        back = len(nodes) - 1 - i
        if draw(st.integers(0, 2)) == 0:
            nodes[i] = nodes[i]._replace(makes=(*nodes[i].makes, len(values)))
            nodes[back] = nodes[back]._replace(reads=(*nodes[back].reads, len(values)))
            values.append(Value(f"mask{i}", draw(st.integers(0, 9))))
        kept = [v for v in nodes[back].reads if v >= plain.border or draw(st.booleans())]
        nodes[back] = nodes[back]._replace(reads=tuple(kept))
    graph = Graph(tuple(nodes), tuple(values), plain.border, plain.held, plain.results)
    graph.check()
    return graph
