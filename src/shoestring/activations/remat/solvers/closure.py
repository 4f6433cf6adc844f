"""What to keep and what to compute once more: the best choice within bytes, proven.

The class of orders: each operation of the forward runs at most once before the border and at
most once after it, there as late as possible.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Sequence

from shoestring.activations.remat.answer import Answer, OverBudgetError, relative_gap
from shoestring.activations.remat.graph import Graph
from shoestring.activations.remat.solvers.closure_counts import (
    Counted,
    count_choices,
    spread_choices,
)
from shoestring.activations.remat.solvers.closure_order import (
    closure_cost,
    closure_order,
    needed_values,
)
from shoestring.activations.remat.solvers.closure_parts import Choice, Kind
from shoestring.activations.remat.solvers.closure_program import solve_mixed
from shoestring.activations.remat.solvers.closure_sweep import ClosurePoint, Sweep, hull, sweep
from shoestring.activations.remat.solvers.lives import Lives

__all__ = [
    "ClosureAnswer",
    "ClosurePoint",
    "hull",
    "least_seconds",
    "solve_peak",
    "solve_saved",
    "sweep",
]

SAMPLES = 33  # points of the whole sweep that are tried before the search goes into detail
NEAR = 8  # points that are tried one by one, from the first that can fit
REFINEMENTS = 8  # choices that are looked for between two neighbours of the sweep
WORTHWHILE = 1e-4  # less than this share of the step's seconds is not searched for


@dataclasses.dataclass(frozen=True, slots=True)
class ClosureAnswer:
    """A choice within some bytes, and a proof of how good it is.

    Attributes:
        recomputed: nodes of the forward that run after the border.
        saved_bytes: bytes kept across the border, counted as in `ClosurePoint`.
        seconds: of computing again.
        bound: seconds of computing again that nothing within the bytes stays under.
        complete: whether the solver came to its own end, before its time was up.
    """

    recomputed: frozenset[int]
    saved_bytes: int
    seconds: float
    bound: float
    complete: bool

    @property
    def gap(self) -> float:
        """How many more seconds than the bound it takes, as a share of the bound."""
        return relative_gap(self.seconds, self.bound)


def solve_saved(
    graph: Graph | Sweep, saved_bytes: int, *, time_limit: float = 10.0, tolerance: float = 1e-4
) -> ClosureAnswer:
    """Find what to compute again, so that what crosses the border stays within some bytes.

        minimise sum_k c_k r_k   subject to   sum_v m_v s_v <= saved_bytes

    with r_k = 1 if node k runs again, s_v = 1 if value v is kept, c_k the seconds and m_v the
    bytes. A value that is read after the border is kept, or what makes it runs again. A node that
    only backward needs may run after the border alone; that costs no seconds.

    Args:
        graph: the operations, or what `sweep` made of them: then another bound is solved faster.
        saved_bytes: most bytes kept, counted as in `ClosurePoint`.
        time_limit: in seconds; when it is up, the best so far is returned.
        tolerance: how much above the least seconds the answer may be, as a share of it.

    Returns:
        The choice with a lower bound.

    Raises:
        OverBudgetError: more must be kept whatever is computed again.
    """
    until = time.monotonic() + time_limit
    swept = graph if isinstance(graph, Sweep) else sweep(graph, time_limit=time_limit)
    parts, least = swept.parts, swept.saved[-1]
    if saved_bytes < least:
        raise OverBudgetError(
            f"{least} bytes must be kept across the border, {saved_bytes} are allowed",
            least=least,
            node=parts.graph.border,
            proven=True,
        )
    point = swept.first_within(saved_bytes)
    seconds, lower = swept.seconds[point], swept.bound(saved_bytes)
    below = seconds / (1 + max(tolerance, 1e-12))
    if lower >= below or until <= time.monotonic():
        chosen, complete = swept.recomputed(point), lower >= below
        return ClosureAnswer(chosen, swept.saved[point], seconds, min(lower, seconds), complete)
    if all(kind.choices is not None for kind in parts.kinds):
        counted = count_choices(parts.kinds, saved_bytes - parts.fixed, below=below, until=until)
        if counted is not None:
            return _counted(swept, point, counted, lower)
    return _mixed(swept, saved_bytes, lower, until=until, tolerance=tolerance)


def _counted(swept: Sweep, point: int, counted: Counted, lower: float) -> ClosureAnswer:
    """Return what was counted as an answer, or the point of the sweep if nothing is better."""
    if counted.times is None:
        seconds = swept.seconds[point]
        bound = min(max(lower, counted.bound), seconds)
        return ClosureAnswer(swept.recomputed(point), swept.saved[point], seconds, bound, True)
    chosen = spread_choices(swept.parts.kinds, counted.times)
    every = list(itertools.chain.from_iterable(chosen))
    saved = swept.parts.fixed + sum(choice.saved for choice in every)
    seconds = sum(choice.seconds for choice in every)
    bound = min(max(lower, counted.bound), seconds)
    return ClosureAnswer(_nodes(swept.parts.kinds, chosen), saved, seconds, bound, True)


def _mixed(
    swept: Sweep, saved_bytes: int, lower: float, *, until: float, tolerance: float
) -> ClosureAnswer:
    """Find a choice by a mixed program, as parts with too many choices to list need it."""
    parts, room = swept.parts, saved_bytes - swept.parts.fixed
    chosen = swept.recomputed(swept.first_within(saved_bytes))
    saved, seconds = closure_cost(parts.graph, chosen)
    complete = False
    while not complete and time.monotonic() < until:
        left = until - time.monotonic()
        found = solve_mixed(parts.kinds, room, time_limit=left, tolerance=tolerance)
        if room == saved_bytes - parts.fixed:
            lower = max(lower, found.bound)
        if found.chosen is None:
            break
        nodes = _nodes(parts.kinds, found.chosen)
        own_bytes, own_seconds = closure_cost(parts.graph, nodes)
        if own_bytes > saved_bytes:
            # The solver's tolerance is a share of the largest value: a few bytes too many.
            room -= own_bytes - saved_bytes
            continue
        complete = found.complete
        if own_seconds < seconds:
            chosen, saved, seconds = nodes, own_bytes, own_seconds
    return ClosureAnswer(chosen, saved, seconds, min(lower, seconds), complete)


def _nodes(kinds: Sequence[Kind], chosen: Sequence[Sequence[Choice]]) -> frozenset[int]:
    return frozenset(
        part[place]
        for kind, choices in zip(kinds, chosen, strict=True)
        for part, choice in zip(kind.members, choices, strict=True)
        for place in choice.nodes
    )


def solve_peak(graph: Graph | Sweep, budget: int, *, time_limit: float = 10.0) -> Answer:
    """Find the fastest order of the class whose true peak stays within a budget.

    The bytes kept are not the peak, so orders of the sweep are simulated, the fastest first, and
    mixed programs are solved between the first that fits and its neighbour that does not.

    The bound holds for all orders, those too that compute a value many times, as long as what
    draws random numbers and what backward never needs run before the border. For let K be the
    values that are there when the border runs, and are read after it before they are made again,
    or stay at the end; and let R be the nodes of the forward that run after the border. What runs
    after the border reads only values of K and of nodes of R, so (R, K) is a choice of the class;
    its seconds are no more than those that the order pays beyond one run of each node, for a node
    of R ran before the border too, or all that read its values did not run there either. While
    the border runs there are K, what it makes, its workspace, and what it alone can still read.
    So K has at most the budget less those bytes, and the least seconds of a choice within them,
    added to those of all nodes, are a bound.

    Args:
        graph: the operations, or what `sweep` made of them.
        budget: most bytes at one time.
        time_limit: in seconds; when it is up, the best so far is returned.

    Returns:
        The order, its peak and seconds, and the bound.

    Raises:
        OverBudgetError: no order that was tried fits; it says the least peak and where it lies.
    """
    until = time.monotonic() + time_limit
    swept = graph if isinstance(graph, Sweep) else sweep(graph, time_limit=time_limit)
    trials = _Trials(swept, budget, until)
    if trials.fits(frozenset()):
        return trials.answer(0.0)
    room = budget - _border_bytes(swept.parts.graph)
    bound = swept.bound(room)
    if bound < math.inf and room >= swept.saved[-1]:
        relaxed = solve_saved(swept, room, time_limit=time_limit / 4)
        bound = max(bound, relaxed.bound)
        if trials.fits(relaxed.recomputed):
            return trials.answer(bound)
    start = swept.first_within(room) if room >= swept.saved[-1] else 0
    point = _fastest_point(trials, start)
    if point is None:
        raise trials.failure(proven=bound == math.inf)
    if point:
        _refine(trials, point, bound)
    return trials.answer(bound)


def least_seconds(swept: Sweep, budget: int) -> float:
    """Return seconds that no order within a budget stays under, as `solve_peak` explains.

    Args:
        swept: what `sweep` made of the graph.
        budget: most bytes at one time.

    Returns:
        Infinity if no order fits.
    """
    graph = swept.parts.graph
    return graph.seconds + swept.bound(budget - _border_bytes(graph))


class _Trials:
    """Orders that were tried: the fastest that fits, and the one with the least peak."""

    def __init__(self, swept: Sweep, budget: int, until: float) -> None:
        self.swept = swept
        self.graph = swept.parts.graph
        self.budget = budget
        self.until = until
        self.best: Lives | None = None
        self.least: Lives | None = None
        self.peaks: dict[int, int] = {}

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() > self.until

    def fits(self, recomputed: frozenset[int]) -> bool:
        """Follow a choice; return whether its peak is within the budget."""
        order = closure_order(self.graph, recomputed)
        return self._note(Lives(self.swept.tables, order)) <= self.budget

    def point_fits(self, point: int) -> bool:
        """Follow a point of the sweep, once; return whether its peak is within the budget."""
        if point not in self.peaks:
            self.peaks[point] = self._note(self.swept.lives(point))
        return self.peaks[point] <= self.budget

    def _note(self, tried: Lives) -> int:
        if tried.peak <= self.budget and (self.best is None or tried.seconds < self.best.seconds):
            self.best = tried
        if self.least is None or tried.peak < self.least.peak:
            self.least = tried
        return tried.peak

    def answer(self, bound: float) -> Answer:
        """Return the best that fits, given a bound on the seconds of computing again."""
        assert self.best is not None, "an answer is asked for when an order fits"
        seconds = self.best.seconds
        lower = min(seconds, self.graph.seconds + bound)
        order, complete = tuple(self.best.order), not self.over
        return Answer(order, self.best.peak, seconds, lower, "closure", complete)

    def failure(self, *, proven: bool) -> OverBudgetError:
        """Return the error that says how near to the budget the trials came."""
        assert self.least is not None, "the plain order is always tried"
        order, peak = tuple(self.least.order), self.least.peak
        node = order[int(self.least.during.argmax())]
        name = self.graph.nodes[node].name
        return OverBudgetError(
            f"the least peak found is {peak} bytes, while {name} runs; {self.budget} are allowed",
            least=peak,
            node=node,
            order=order,
            proven=proven,
        )


def _border_bytes(graph: Graph) -> int:
    """Return the bytes that are there while the border runs and cannot be needed after it."""
    border = graph.nodes[graph.border]
    needed = needed_values(graph)
    gone = [
        value
        for value in dict.fromkeys(border.reads)
        if graph.maker[value] >= 0
        and value not in needed
        and graph.repeatable.isdisjoint(graph.readers[value])
    ]
    return graph.sizes(border.makes) + graph.sizes(gone) + border.workspace


def _fastest_point(trials: _Trials, start: int) -> int | None:
    """Return a point of the sweep that fits, while the one before it does not; None if none does.

    The peak need not fall along the sweep: to compute much again for one node of backward needs
    room as well. So points are tried one by one at first, then in longer and longer steps.

    Args:
        trials: where the results are kept.
        start: the first point that can fit: those before keep too much at the border alone.
    """
    last = len(trials.swept.steps)
    longest, step = max(1, last // SAMPLES), 1
    point, before = start, start - 1
    while not (trials.over and trials.peaks):
        if trials.point_fits(point):
            return _between(trials, before, point)
        if point == last:
            break
        if point - start >= NEAR:
            step = min(2 * step, longest)
        before, point = point, min(point + step, last)
    while True:  # no sample fits: look closer and closer around the one with the least peak
        order = sorted(trials.peaks)
        at = min(range(len(order)), key=lambda place: trials.peaks[order[place]])
        near = [order[max(at - 1, 0)], order[at], order[min(at + 1, len(order) - 1)]]
        middles = {(a + b) // 2 for a, b in itertools.pairwise(near)} - trials.peaks.keys()
        if not middles:
            return None
        for point in sorted(middles):
            if trials.over:
                return None
            if trials.point_fits(point):
                return _between(trials, max(p for p in order if p < point), point)


def _between(trials: _Trials, bad: int, good: int) -> int:
    while good - bad > 1 and not trials.over:
        middle = (bad + good) // 2
        if trials.point_fits(middle):
            good = middle
        else:
            bad = middle
    return good


def _refine(trials: _Trials, point: int, bound: float) -> None:
    """Try choices that keep more than a point that fits, and less than its neighbour that does not.

    Args:
        trials: where the results are kept.
        point: of the sweep; it fits, and the one before it does not.
        bound: seconds of computing again that nothing stays under.
    """
    swept, once = trials.swept, trials.graph.seconds
    low, high = swept.saved[point], swept.saved[point - 1]
    worthwhile = once * WORTHWHILE
    least = max(bound, swept.seconds[point - 1])
    for _ in range(REFINEMENTS):
        assert trials.best is not None, "the point fits"
        most = trials.best.seconds - once - worthwhile
        middle = (low + high) // 2
        left = trials.until - time.monotonic()
        if middle <= low or left <= 0 or most <= least:
            return
        found = solve_saved(swept, middle, time_limit=left, tolerance=1e-3)
        if found.seconds > most or trials.fits(found.recomputed):
            low = middle  # where fewer are kept nothing is faster
        else:
            high = max(low, found.saved_bytes)
