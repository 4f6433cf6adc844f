"""The whole front of bytes kept against seconds of computing again, as far as it is convex.

With a price on each byte the parts of a graph choose for themselves. As the price rises, each
part steps down the corners of its own hull, so the hull of the graph is the steps of all parts,
the cheapest byte first.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import math
import time
from collections import Counter
from functools import cached_property

from shoestring.activations.remat.graph import Graph
from shoestring.activations.remat.solvers.closure_order import closure_order
from shoestring.activations.remat.solvers.closure_parts import (
    Choice,
    Parts,
    lower_hull,
    price,
    take_apart,
)
from shoestring.activations.remat.solvers.closure_program import corner_choices
from shoestring.activations.remat.solvers.lives import Lives, Tables


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A way through the choices, from the fewest seconds to the fewest bytes.

    Point i is reached by the first i steps; a step moves one part on by one corner of its hull.
    Points inside an edge of the hull lie on it too: the parts that take those steps are alike.

    Attributes:
        parts: the graph, taken apart.
        corners: by kind of part, the corners of its hull.
        steps: kind and member that move on, at a rising price of a byte.
        prices: of each step, in seconds a byte.
        slack: seconds that corners which were not looked for can lie below the others, in all.
        complete: whether the sweep came to its own end, before its time was up.
    """

    parts: Parts
    corners: tuple[tuple[Choice, ...], ...]
    steps: tuple[tuple[int, int], ...]
    prices: tuple[float, ...]
    slack: float
    complete: bool

    @cached_property
    def saved(self) -> tuple[int, ...]:
        """Bytes kept at each point, falling."""
        first = self.parts.fixed
        for kind, corners in zip(self.parts.kinds, self.corners, strict=True):
            first += len(kind.members) * corners[0].saved
        return tuple(
            itertools.accumulate((b.saved - a.saved for a, b in self._moves), initial=first)
        )

    @cached_property
    def seconds(self) -> tuple[float, ...]:
        """Seconds of computing again at each point, rising; the first is 0."""
        gains = (b.seconds - a.seconds for a, b in self._moves)
        return tuple(itertools.accumulate(gains, initial=0.0))

    @cached_property
    def _moves(self) -> tuple[tuple[Choice, Choice], ...]:
        at: Counter[tuple[int, int]] = Counter()
        moves = []
        for step in self.steps:
            corners = self.corners[step[0]]
            moves.append((corners[at[step]], corners[at[step] + 1]))
            at[step] += 1
        return tuple(moves)

    @cached_property
    def tables(self) -> Tables:
        """What following orders of the graph looks up."""
        return Tables(self.parts.graph)

    @cached_property
    def _followed(self) -> dict[int, Lives]:
        return {}

    def lives(self, point: int) -> Lives:
        """Return the order of a point, followed; it is worked out once.

        Args:
            point: its index.
        """
        if point not in self._followed:
            order = closure_order(self.parts.graph, self.recomputed(point))
            self._followed[point] = Lives(self.tables, order)
        return self._followed[point]

    def recomputed(self, point: int) -> frozenset[int]:
        """Return the nodes that run after the border at a point.

        Args:
            point: its index.
        """
        at = Counter(self.steps[:point])
        nodes: list[int] = []
        for number, (kind, corners) in enumerate(zip(self.parts.kinds, self.corners, strict=True)):
            for member, part in enumerate(kind.members):
                nodes += [part[k] for k in corners[at[number, member]].nodes]
        return frozenset(nodes)

    def first_within(self, saved_bytes: int) -> int:
        """Return the first point that keeps no more than some bytes.

        Args:
            saved_bytes: at least those of the last point.
        """
        return bisect.bisect_left(self.saved, -saved_bytes, key=lambda saved: -saved)

    def bound(self, saved_bytes: int) -> float:
        """Return seconds that no choice within some bytes stays under: the hull's height there.

        Args:
            saved_bytes: most bytes kept.

        Returns:
            Infinity if nothing keeps so few.
        """
        if saved_bytes < self.saved[-1]:
            return math.inf
        point = self.first_within(saved_bytes)
        if point == 0:
            return 0.0
        over = self.saved[point - 1] - saved_bytes
        height = self.seconds[point - 1] + over * self.prices[point - 1]
        return max(height - self.slack, 0.0)


@dataclasses.dataclass(frozen=True, slots=True)
class ClosurePoint:
    """A choice of what is computed again.

    Attributes:
        saved_bytes: bytes of the values that are made in forward and read after the border, or
            stay at the end, and are not made again. What only the border reads is not counted.
        seconds: of computing again, what is only delayed left out.
        sweep: where it comes from.
        point: its index there.
    """

    saved_bytes: int
    seconds: float
    sweep: Sweep = dataclasses.field(repr=False, compare=False)
    point: int = dataclasses.field(repr=False, compare=False)

    @property
    def recomputed(self) -> frozenset[int]:
        """The nodes of the forward that run after the border."""
        return self.sweep.recomputed(self.point)


def sweep(
    graph: Graph, *, time_limit: float = 10.0, tolerance: float = 1e-5, listed: int = 12
) -> Sweep:
    """Find the best choices at every price of a byte.

    Args:
        graph: the operations.
        time_limit: in seconds.
        tolerance: corners that lie less than this below the others, as a share of the seconds of
            all nodes, may be left out; 0 finds all. Small parts have all their corners anyway.
        listed: most nodes of a part whose choices are all tried; larger ones are linear programs.
    """
    until = time.monotonic() + time_limit
    parts = take_apart(graph, listed=listed)
    large = sum(len(kind.members) for kind in parts.kinds if kind.choices is None)
    share = tolerance * graph.seconds / max(large, 1)
    slack, corners = 0.0, []
    for kind in parts.kinds:
        if kind.choices is not None:
            corners.append(lower_hull(kind.choices))
            continue
        found, below = corner_choices(kind.form, until=until, slack=share)
        slack += below * len(kind.members)
        corners.append(found)
    steps = sorted(
        (price(before, after), member[0], level, number, place)
        for number, (kind, own) in enumerate(zip(parts.kinds, corners, strict=True))
        for level, (before, after) in enumerate(itertools.pairwise(own))
        for place, member in enumerate(kind.members)
    )
    prices = tuple(step[0] for step in steps)
    complete = time.monotonic() < until
    return Sweep(parts, tuple(corners), tuple(s[3:] for s in steps), prices, slack, complete)


def hull(graph: Graph | Sweep, *, time_limit: float = 30.0) -> list[ClosurePoint]:
    """Return the corners of the lower convex hull of (bytes kept, seconds of computing again).

    They are the choices that minimise

        sum_k c_k r_k + lambda sum_v m_v s_v

    for some price lambda, with r_k = 1 if node k runs again, s_v = 1 if value v is kept, c_k the
    seconds and m_v the bytes. The price is a Lagrange multiplier of the bound on the bytes.

    Args:
        graph: the operations, or what `sweep` made of them.
        time_limit: in seconds; when it is up, corners may be missing.

    Returns:
        The corners by rising seconds: the first computes nothing twice that takes time, the
        last keeps the fewest bytes.

    Example:
        >>> from shoestring.activations.remat.graph import Graph, Node, Value
        >>> nodes = (
        ...     Node("f", 1.0, (), (0,)),
        ...     Node("loss", 0.0, (0,), (1,)),
        ...     Node("b", 2.0, (0, 1), (2,)),
        ... )
        >>> values = tuple(Value(name, 64) for name in ("x", "dy", "dx"))
        >>> graph = Graph(nodes, values, 1, frozenset(), frozenset({2}))
        >>> [(point.saved_bytes, point.seconds) for point in hull(graph)]
        [(64, 0.0), (0, 1.0)]
    """
    swept = (
        graph if isinstance(graph, Sweep) else sweep(graph, time_limit=time_limit, tolerance=0.0)
    )
    ends = [0]
    for at, (before, after) in enumerate(itertools.pairwise(swept.prices), start=1):
        if before < after:
            ends.append(at)
    if swept.steps:
        ends.append(len(swept.steps))
    return [ClosurePoint(swept.saved[i], swept.seconds[i], swept, i) for i in ends]
