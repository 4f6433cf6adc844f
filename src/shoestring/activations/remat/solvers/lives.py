"""Where each value lives in an order: what `simulate` counts, for many orders of one graph."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from shoestring.activations.remat.graph import Graph

Counts = NDArray[np.int64]


class Tables:
    """What is looked up again and again in one graph.

    Attributes:
        graph: the operations.
        sizes: bytes of each value; 0 for what is held.
        seconds: of each node.
        workspaces: of each node.
        again: by value, whether its maker may run again.
    """

    def __init__(self, graph: Graph) -> None:
        """Make the tables.

        Args:
            graph: the operations.
        """
        self.graph = graph
        self.sizes: Counts = np.array([value.size for value in graph.values], np.int64)
        self.sizes[list(graph.held)] = 0
        self.seconds = [node.seconds for node in graph.nodes]
        self.workspaces: Counts = np.array([node.workspace for node in graph.nodes], np.int64)
        self.again = np.array([maker in graph.repeatable for maker in graph.maker], np.bool_)
        # of each node: what it reads, as 2 v, and what it makes, as 2 v + 1
        rows = [
            [2 * v for v in dict.fromkeys(node.reads) if v not in graph.held]
            + [2 * v + 1 for v in node.makes]
            for node in graph.nodes
        ]
        self.touched: Counts = np.array([code for row in rows for code in row], np.int64)
        self.counts: Counts = np.array([len(row) for row in rows], np.int64)
        self.starts: Counts = np.cumsum(self.counts) - self.counts
        self.results: Counts = np.array(sorted(graph.results), np.int64)


class Lives:
    """An order, and from where to where each copy of each value is there.

    A stretch lies between two positions that touch a value, of which the later reads it: there
    the value is held for nothing else. To drop it there means to make it again at the end.

    Attributes:
        tables: of the graph.
        order: indices of nodes.
        during: bytes at each position, while that node runs, as in `simulate`.
        values: of the stretches.
        first: position where each stretch begins.
        last: position that reads the value next; the length of the order for what stays.
    """

    def __init__(self, tables: Tables, order: Sequence[int]) -> None:
        """Follow all values through an order.

        Args:
            tables: of the graph.
            order: indices of nodes; it is not checked whether it can run.
        """
        self.tables = tables
        self.order = list(order)
        length = len(self.order)
        nodes = np.array(self.order, np.int64)
        counts = tables.counts[nodes]
        ends = np.cumsum(counts)
        total = int(ends[-1]) if length else 0
        inside = np.arange(total) - np.repeat(ends - counts, counts)
        codes = tables.touched[np.repeat(tables.starts[nodes], counts) + inside]
        places = np.repeat(np.arange(length), counts)
        self._span = 2 * length + 2
        # sorted by value, then position; at one position a read comes before a make
        keys = (codes >> 1) * self._span + 2 * places + (codes & 1)
        stay = tables.results * self._span + 2 * length
        keys = np.sort(np.concatenate([keys, stay]))
        values, times = keys // self._span, keys % self._span
        positions, makes = times >> 1, times & 1
        follows = (values[1:] == values[:-1]) & (makes[1:] == 0)
        self.values: Counts = values[1:][follows]
        self.first: Counts = positions[:-1][follows]
        self.last: Counts = positions[1:][follows]
        self._keys = keys
        steps = np.zeros(length + 2, np.int64)
        sizes = tables.sizes[self.values]
        np.add.at(steps, self.first + 1, sizes)
        np.subtract.at(steps, self.last + 1, sizes)
        made = makes == 1
        new = np.zeros(length, np.int64)
        np.add.at(new, positions[made], tables.sizes[values[made]])
        self.during: Counts = np.cumsum(steps)[:length] + new + tables.workspaces[nodes]

    @cached_property
    def peak(self) -> int:
        """Most bytes at one time."""
        return int(self.during.max())

    @cached_property
    def seconds(self) -> float:
        """Of all computations."""
        return sum(self.tables.seconds[node] for node in self.order)

    @cached_property
    def _sorted(self) -> list[int]:
        keys: list[int] = self._keys.tolist()
        return keys

    def before(self, value: int, position: int) -> int:
        """Return the last position before another that touches a value; -1 if none does.

        Args:
            value: its index.
            position: in the order.
        """
        at = bisect.bisect_left(self._sorted, value * self._span + 2 * position)
        if at and (key := self._sorted[at - 1]) >= value * self._span:
            return (key - value * self._span) >> 1
        return -1

    def next(self, value: int, position: int) -> tuple[int, bool]:
        """Return the next position from another on that touches a value, and whether it makes it.

        Args:
            value: its index.
            position: in the order.

        Returns:
            A position beyond the end, and True, where nothing touches it any more.
        """
        at = bisect.bisect_left(self._sorted, value * self._span + 2 * position)
        if at < len(self._sorted) and (key := self._sorted[at]) < (value + 1) * self._span:
            return (key - value * self._span) >> 1, bool((key - value * self._span) & 1)
        return len(self.order) + 1, True

    def there(self, value: int, position: int) -> bool:
        """Return whether a value is there when a position begins, and is read from then on.

        Args:
            value: its index.
            position: in the order.
        """
        return not self.next(value, position)[1] and self.before(value, position) >= 0
