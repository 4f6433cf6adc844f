"""The choice of what to keep, taken apart into small choices that do not touch each other.

Backward reads most values itself. Such a value must be there whoever else reads it, so the nodes
that read it again do not depend on how it got there. What ties two nodes of the forward together
is only a value that backward does not read. That leaves many parts of few nodes, and in a net of
equal layers most parts are alike: each form is solved once.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from shoestring.activations.remat.graph import Graph
from shoestring.activations.remat.solvers.closure_order import needed_values

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class PartValue(NamedTuple):
    """A value of a part.

    Attributes:
        size: its bytes.
        maker: the node of the part that makes it; -1 if what makes it never runs again.
        readers: the nodes of the part that read it; empty if it is needed anyway.
        needed: whether backward reads it.
    """

    size: int
    maker: int
    readers: tuple[int, ...]
    needed: bool


class Form(NamedTuple):
    """What matters of a part; parts of one form have the same choices.

    Attributes:
        seconds: of each node.
        values: what is kept or not.
        followers: by node, the nodes of the forward that read it, if it can be delayed: its
            seconds are paid once if it and all of them run after the border only. None if the
            border needs it.
    """

    seconds: tuple[float, ...]
    values: tuple[PartValue, ...]
    followers: tuple[tuple[int, ...] | None, ...]


class Choice(NamedTuple):
    """One way to do a part.

    Attributes:
        saved: bytes kept across the border.
        seconds: of computing again.
        nodes: those that run after the border, as indices within the part.
    """

    saved: int
    seconds: float
    nodes: tuple[int, ...]


class Kind(NamedTuple):
    """Parts of one form.

    Attributes:
        form: what they share.
        members: the nodes of each part, those that run first in front.
        choices: all that no other beats, by rising seconds; None if there are too many to list.
    """

    form: Form
    members: tuple[tuple[int, ...], ...]
    choices: tuple[Choice, ...] | None


@dataclasses.dataclass(frozen=True, slots=True)
class Parts:
    """A graph, taken apart.

    Attributes:
        graph: it.
        fixed: bytes that cross the border whatever is chosen.
        kinds: the parts.
    """

    graph: Graph
    fixed: int
    kinds: tuple[Kind, ...]


def take_apart(graph: Graph, *, listed: int = 12) -> Parts:
    """Find the parts of a graph, and the choices of the small ones.

    Args:
        graph: the operations.
        listed: most nodes of a part whose choices are all tried; there are 2^nodes.
    """
    needed = needed_values(graph)
    free = _free_nodes(graph, needed)
    delayable = _delayable(graph, free)
    groups = _groups(graph, free, needed, delayable)
    kinds: dict[Form, list[tuple[int, ...]]] = defaultdict(list)
    for nodes, values in groups:
        kinds[_form(graph, nodes, values, needed, delayable)].append(nodes)
    fixed = graph.sizes([v for v in needed if graph.maker[v] not in free])
    listing = []
    for form, members in kinds.items():
        small = len(form.seconds) <= listed
        listing.append(Kind(form, tuple(members), list_choices(form) if small else None))
    return Parts(graph, fixed, tuple(listing))


def cost_of(form: Form, again: Bools) -> tuple[Ints, Floats]:
    """Return the bytes kept and the seconds of choices.

    Args:
        form: the part.
        again: (choices, nodes) what runs after the border.
    """
    saved = np.zeros(len(again), dtype=np.int64)
    for size, maker, readers, needed in form.values:
        there = np.ones(len(again), dtype=bool) if needed else again[:, readers].any(axis=1)
        saved += size * (there & ~again[:, maker] if maker >= 0 else there)
    twice = again.copy()
    late = np.zeros_like(again)
    for node in reversed(range(len(form.seconds))):
        followers = form.followers[node]
        if followers is not None:
            late[:, node] = again[:, node] & late[:, followers].all(axis=1)
            twice[:, node] &= ~late[:, node]
    seconds: Floats = twice.astype(np.float64) @ np.array(form.seconds, dtype=np.float64)
    return saved, seconds


def list_choices(form: Form) -> tuple[Choice, ...]:
    """Return all choices that no other beats in bytes and seconds, by rising seconds.

    Args:
        form: the part; of few nodes, for all 2^nodes choices are tried.
    """
    count = len(form.seconds)
    again = (np.arange(1 << count)[:, None] >> np.arange(count)) & 1 == 1
    saved, seconds = cost_of(form, again)
    # Of equal ones the first computes least again, so nothing is computed for nobody.
    best = np.lexsort((again.sum(axis=1), saved, seconds))
    before = np.minimum.accumulate(saved[best])
    best = best[np.concatenate(([True], saved[best][1:] < before[:-1]))]
    return tuple(
        Choice(int(saved[row]), float(seconds[row]), tuple(np.flatnonzero(again[row]).tolist()))
        for row in best
    )


def lower_hull(choices: Sequence[Choice]) -> tuple[Choice, ...]:
    """Return the corners of the lower convex hull of choices, by rising seconds.

    Args:
        choices: of one part.
    """
    hull: list[Choice] = []
    for choice in sorted(set(choices), key=lambda c: (c.seconds, c.saved, len(c.nodes))):
        if hull and choice.saved >= hull[-1].saved:
            continue
        while len(hull) > 1 and price(hull[-2], hull[-1]) >= price(hull[-1], choice):
            hull.pop()
        hull.append(choice)
    return tuple(hull)


def price(first: Choice, second: Choice) -> float:
    """Return the seconds that a byte costs on the way from one choice to another.

    Args:
        first: keeps more bytes.
        second: keeps fewer.
    """
    return (second.seconds - first.seconds) / (first.saved - second.saved)


def _free_nodes(graph: Graph, needed: frozenset[int]) -> frozenset[int]:
    """Return the nodes that may run again, and whose values something could read after the border.

    A value read only by nodes that draw random numbers is needed by nothing after the border.
    """
    wanted, free = set(needed), []
    for index in reversed(range(graph.border)):
        node = graph.nodes[index]
        if node.repeatable and not wanted.isdisjoint(node.makes):
            free.append(index)
            wanted.update(node.reads)
    return frozenset(free)


def _delayable(graph: Graph, free: frozenset[int]) -> dict[int, tuple[int, ...]]:
    """Return the nodes that need not run before the border, with those that read them there."""
    asked = set(graph.nodes[graph.border].reads)
    delayable: dict[int, tuple[int, ...]] = {}
    for index in sorted(free, reverse=True):
        makes = graph.nodes[index].makes
        readers = {k for value in makes for k in graph.readers[value] if k < graph.border}
        if asked.isdisjoint(makes) and readers <= delayable.keys():
            delayable[index] = tuple(sorted(readers))
    return delayable


class _Union:
    """Sets that grow together."""

    def __init__(self, nodes: Iterable[int]) -> None:
        self.above = {node: node for node in nodes}

    def root(self, node: int) -> int:
        """Return the one that stands for the set of a node."""
        while self.above[node] != node:
            self.above[node] = self.above[self.above[node]]
            node = self.above[node]
        return node

    def join(self, nodes: Sequence[int]) -> None:
        """Make one set of the sets of some nodes."""
        for node in nodes[1:]:
            self.above[self.root(node)] = self.root(nodes[0])


def _groups(
    graph: Graph,
    free: frozenset[int],
    needed: frozenset[int],
    delayable: dict[int, tuple[int, ...]],
) -> list[tuple[tuple[int, ...], list[int]]]:
    """Return the nodes of each part, with the values that it decides about."""
    union, touched = _Union(free), {}
    for value, maker in enumerate(graph.maker):
        if not 0 <= maker < graph.border:
            continue
        readers = [] if value in needed else [k for k in graph.readers[value] if k in free]
        ends = [maker, *readers] if maker in free else readers
        if readers or (value in needed and maker in free):
            touched[value] = ends
            union.join(ends)
    for node, followers in delayable.items():
        union.join([node, *followers])
    nodes: dict[int, list[int]] = defaultdict(list)
    for node in sorted(free):
        nodes[union.root(node)].append(node)
    values: dict[int, list[int]] = defaultdict(list)
    for value, ends in touched.items():
        values[union.root(ends[0])].append(value)
    return [(tuple(own), values[top]) for top, own in nodes.items()]


def _form(
    graph: Graph,
    nodes: tuple[int, ...],
    values: list[int],
    needed: frozenset[int],
    delayable: dict[int, tuple[int, ...]],
) -> Form:
    place = {node: at for at, node in enumerate(nodes)}
    own = []
    for index in values:
        always = index in needed
        readers = [] if always else sorted({place[k] for k in graph.readers[index] if k in place})
        size = graph.values[index].size
        own.append(PartValue(size, place.get(graph.maker[index], -1), tuple(readers), always))
    followers = tuple(
        tuple(place[k] for k in delayable[node]) if node in delayable else None for node in nodes
    )
    return Form(tuple(graph.nodes[k].seconds for k in nodes), tuple(sorted(own)), followers)
