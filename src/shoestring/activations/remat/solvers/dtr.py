"""Dynamic rematerialisation: orders of a step that evicts only when its memory is full."""

from __future__ import annotations

import numpy as np

from shoestring.activations.remat.answer import Answer, OverBudgetError
from shoestring.activations.remat.graph import Graph
from shoestring.activations.remat.simulate import simulate


def solve_dtr(graph: Graph, budget: int, *, most_times: float = 20.0) -> Answer:
    """Return the order that dynamic tensor rematerialisation takes.

    The step runs in its plain order and knows nothing of what comes. When the next node does
    not fit, values t are evicted, those of the least

        h(t) = (c(t) + sum over u in e*(t) of c(u)) / (m(t) s(t))

    first: c seconds, m bytes, s operations since t was read or made, e*(t) the evicted
    values from which t is computed or that are computed from it, through evicted ones only.
    What is read and is not there is computed again, and so on upwards. Only values that
    repeatable nodes of the forward make are evicted: gradients stay until they are read, and
    backward computes forward values again as the forward does.

    Args:
        graph: the operations.
        budget: bytes that the peak may reach.
        most_times: give up after so many operations for each node of the graph.

    Returns:
        The order. Its bound is the seconds of all nodes, each run once.

    Raises:
        OverBudgetError: everything there is in use and more is needed, or computing again
            does not come to an end.

    Example:
        >>> from shoestring.activations.remat.graph import Graph, Node, Value
        >>> f, g = Node("f", 1.0, (), (0,)), Node("g", 1.0, (0,), (1,))
        >>> loss, b = Node("loss", 0.0, (1,), (2,)), Node("b", 1.0, (0, 2), (3,))
        >>> values = (Value("x", 8), Value("y", 6), Value("dy", 4), Value("dx", 1))
        >>> graph = Graph((f, g, loss, b), values, 2, frozenset(), frozenset({3}))
        >>> solve_dtr(graph, 14).order
        (0, 1, 2, 0, 3)

    Source:
        Kirisame et al., "Dynamic Tensor Rematerialization", ICLR 2021, section 2 and 4.1.
    """
    run = _Run(graph, budget, most=round(most_times * len(graph.nodes)))
    for index in graph.plain:
        run.step(index)
    order = tuple(run.order)
    result = simulate(graph, order)
    return Answer(order, result.peak, result.seconds, graph.seconds, "dtr", complete=True)


class _Run:
    """One step under way.

    A value of the forward that has run is there, evicted, or gone: nothing can need it again.
    """

    def __init__(self, graph: Graph, budget: int, *, most: int) -> None:
        count = len(graph.values)
        self.order: list[int] = []
        self._graph, self._budget, self._most = graph, budget, most
        self._now = 0  # in the plain order
        self._bytes = 0
        self._there = [value in graph.held for value in range(count)]
        self._evicted: set[int] = set()
        self._ending = _ending(graph)
        self._last_needed = [len(graph.nodes)] * count
        for node, values in self._ending.items():
            for value in values:
                self._last_needed[value] = node
        self._last_read = [max(readers, default=-1) for readers in graph.readers]
        self._pins = np.zeros(count, dtype=np.int64)
        # Scores are taken of all values at once; what cannot go has an infinite cost.
        self._sizes = np.array([float(max(value.size, 1)) for value in graph.values])
        self._touched = np.zeros(count)
        self._costs = np.full(count, np.inf)
        self._stale: set[int] = set()  # values whose cost has changed

    def step(self, index: int) -> None:
        """Run the next node of the plain order, before it those that make what is missing."""
        self._now = index
        stack = [index]
        self._pin(index, 1)
        while stack:
            reads = self._graph.nodes[stack[-1]].reads
            missing = next((value for value in reads if not self._there[value]), None)
            if missing is None:
                self._compute(stack[-1])
                self._pin(stack.pop(), -1)
            else:
                stack.append(self._graph.maker[missing])
                self._pin(stack[-1], 1)
        for value in self._graph.nodes[index].reads:
            if self._last_read[value] == index and self._may_go(value):
                self._evict(value)
        for value in self._ending.get(index, ()):
            self._forget(value)

    def _pin(self, index: int, by: int) -> None:
        """Let nothing evict what a node reads, or not any longer."""
        for value in set(self._graph.nodes[index].reads):
            self._pins[value] += by

    def _compute(self, index: int) -> None:
        node = self._graph.nodes[index]
        made = [value for value in node.makes if not self._there[value]]
        self._make_room(self._graph.sizes(made) + node.workspace, index)
        if len(self.order) == self._most:
            raise OverBudgetError(
                f"after {self._most} operations the step had come to node {self._now} of "
                f"{len(self._graph.nodes)} within {self._budget} bytes",
                least=self._budget,
                node=self._now,
            )
        self.order.append(index)
        for value in made:
            self._there[value] = True
            self._bytes += self._graph.values[value].size
            if value in self._evicted:
                self._evicted.discard(value)
                self._stale |= self._neighbours(value)[1]
            self._stale.add(value)
        self._touched[[*node.reads, *node.makes]] = len(self.order)
        for value in made:
            # One of several results of which another one was wanted.
            unread = self._last_read[value] < self._now and not self._pins[value]
            if unread and self._may_go(value):
                if self._last_needed[value] < self._now:
                    self._drop(value)  # nothing can need it, so it makes no neighbour dear
                else:
                    self._evict(value)

    # --- eviction ---------------------------------------------------------------------------

    def _make_room(self, need: int, index: int) -> None:
        while self._bytes + need > self._budget:
            for value in self._stale:
                if self._there[value] and self._may_go(value):
                    self._costs[value] = self._cost(value)
            self._stale.clear()
            scores = self._costs / (self._sizes * (len(self.order) + 1 - self._touched))
            scores[self._pins > 0] = np.inf
            scores[list(self._graph.nodes[index].makes)] = np.inf  # it would be made again
            least = int(scores.argmin())
            if scores[least] == np.inf:
                name, least = self._graph.nodes[index].name, self._bytes + need
                message = (
                    f"{name} takes {least} bytes with what is in use, {self._budget} are allowed"
                )
                raise OverBudgetError(message, least=least, node=index)
            self._evict(least)

    def _may_go(self, value: int) -> bool:
        """Whether a value may be evicted: it can be made again, and is worth it."""
        graph, maker = self._graph, self._graph.maker[value]
        return (
            maker in graph.repeatable
            and value not in graph.results
            and graph.values[value].size > 0
        )

    def _evict(self, value: int) -> None:
        self._drop(value)
        self._evicted.add(value)
        self._stale |= self._neighbours(value)[1]

    def _forget(self, value: int) -> None:
        """Drop a value that nothing can need again."""
        if value in self._evicted:
            self._stale |= self._neighbours(value)[1]
            self._evicted.discard(value)
        elif self._there[value]:
            self._drop(value)

    def _drop(self, value: int) -> None:
        self._there[value] = False
        self._bytes -= self._graph.values[value].size
        self._costs[value] = np.inf

    def _cost(self, value: int) -> float:
        """Return the seconds that making a value again may take: its own and its neighbours'."""
        nodes = {self._graph.maker[value], *self._neighbours(value)[0]}
        return sum(self._graph.nodes[node].seconds for node in nodes)

    def _neighbours(self, value: int) -> tuple[set[int], set[int]]:
        """Return the evicted neighbourhood of a value, and the values that are around it.

        The first are the nodes that make evicted values from which the value is computed, or
        which are computed from it, through evicted values only. The second are the values
        where these ways end: those that have this one's maker in their neighbourhood when
        this one is evicted.
        """
        graph, nodes, around = self._graph, set[int](), set[int]()
        stack = [graph.maker[value]]
        while stack:
            for read in graph.nodes[stack.pop()].reads:
                maker = graph.maker[read]
                if read not in self._evicted:
                    around.add(read)
                elif maker not in nodes:
                    nodes.add(maker)
                    stack.append(maker)
        stack, seen = [value], set[int]()
        while stack:
            for reader in graph.readers[stack.pop()]:
                for made in graph.nodes[reader].makes if reader not in seen else ():
                    if made in self._evicted:
                        nodes.add(reader)
                        stack.append(made)
                    else:
                        around.add(made)
                seen.add(reader)
        return nodes, around


def _ending(graph: Graph) -> dict[int, list[int]]:
    """Return, by node of the plain order, the values that nothing can need after it.

    A value is needed by its readers, and as long as what a repeatable reader makes is needed.
    """
    last = [-1] * len(graph.values)
    ending: dict[int, list[int]] = {}
    for index in reversed(range(len(graph.nodes))):
        for value in graph.nodes[index].makes:
            if value in graph.results:
                continue
            last[value] = max([index, *graph.readers[value]])
            for reader in graph.readers[value]:
                if reader in graph.repeatable:
                    last[value] = max([last[value], *(last[w] for w in graph.nodes[reader].makes)])
            ending.setdefault(last[value], []).append(value)
    return ending
