"""The graph that schedules are made for: operations of one step, and the storages they share."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from functools import cached_property
from typing import NamedTuple


class Value(NamedTuple):
    """One storage. Views and other names of it are the same value.

    Attributes:
        name: for people.
        size: bytes that its allocation takes.
    """

    name: str
    size: int


class Node(NamedTuple):
    """One operation. Views are none: whoever reads a view reads the value beneath it.

    Attributes:
        name: for people.
        seconds: that it takes each time.
        reads: indices of the values that must be there.
        makes: indices of the values that it makes; each value is made by one node.
        workspace: bytes that it needs beside its results, and only while it runs.
        repeatable: whether it may run in backward, again or for the first time. What draws random
            numbers may not: it runs once, in forward, where the plain step runs it.
        kind: what operations of its sort are called together.
    """

    name: str
    seconds: float
    reads: tuple[int, ...]
    makes: tuple[int, ...]
    workspace: int = 0
    repeatable: bool = True
    kind: str = ""


@dataclasses.dataclass(frozen=True)
class Graph:
    """The operations of one forward and backward, in the order of a step that keeps everything.

    The node at `border` stands for what lies between forward and backward, outside of the model:
    it reads the outputs and makes the gradients of the outputs. Nodes before it are the forward
    and may run again after it; nodes after it are the backward and run once, after it.

    Attributes:
        nodes: the operations; a node comes after those that make what it reads.
        values: the storages.
        border: index of the node between forward and backward.
        held: values that are there throughout and cost nothing: parameters, buffers, the batch.
            No node makes them.
        results: values that stay when the step has ended: gradients.
    """

    nodes: tuple[Node, ...]
    values: tuple[Value, ...]
    border: int
    held: frozenset[int]
    results: frozenset[int]

    @cached_property
    def maker(self) -> tuple[int, ...]:
        """The node that makes each value; -1 for what is held."""
        makers = [-1] * len(self.values)
        for index, node in enumerate(self.nodes):
            for value in node.makes:
                makers[value] = index
        return tuple(makers)

    @cached_property
    def readers(self) -> tuple[tuple[int, ...], ...]:
        """The nodes that read each value, in order."""
        readers: list[list[int]] = [[] for _ in self.values]
        for index, node in enumerate(self.nodes):
            for value in node.reads:
                readers[value].append(index)
        return tuple(map(tuple, readers))

    @cached_property
    def repeatable(self) -> frozenset[int]:
        """The nodes that may run again: of the forward, and giving the same each time."""
        return frozenset(k for k in range(self.border) if self.nodes[k].repeatable)

    @property
    def seconds(self) -> float:
        """Seconds of all nodes, each run once."""
        return sum(node.seconds for node in self.nodes)

    @property
    def plain(self) -> tuple[int, ...]:
        """The order that computes nothing twice."""
        return tuple(range(len(self.nodes)))

    def sizes(self, values: Iterable[int]) -> int:
        """Return the bytes of some values.

        Args:
            values: their indices.
        """
        return sum(self.values[value].size for value in values)

    def check(self) -> None:
        """Raise where the graph breaks its own rules.

        Raises:
            ValueError: two nodes make one value, a node reads what no earlier node makes, a
                held value is made, or the border is no node.
        """
        made: set[int] = set(self.held)
        for index, node in enumerate(self.nodes):
            if missing := [value for value in node.reads if value not in made]:
                raise ValueError(f"node {index} reads value {missing[0]} before it is made")
            if again := [value for value in node.makes if value in made]:
                raise ValueError(f"value {again[0]} is made a second time by node {index}")
            made.update(node.makes)
        if unmade := sorted(set(range(len(self.values))) - made):
            raise ValueError(f"no node makes value {unmade[0]}")
        if not self.results <= made:
            raise ValueError("a result is no value of the graph")
        if not 0 <= self.border < len(self.nodes):
            raise ValueError(f"the border {self.border} is no node")
