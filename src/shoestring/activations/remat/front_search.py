"""The whole front of peak against seconds: schedules of which none beats another in both."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Final

import numpy as np

from shoestring.activations.remat.answer import Answer, OverBudgetError
from shoestring.activations.remat.captured import Schedule
from shoestring.activations.remat.graph import Graph
from shoestring.activations.remat.simulate import simulate
from shoestring.activations.remat.solvers.blocks import NotAChainError
from shoestring.activations.remat.solvers.chain import Chain
from shoestring.activations.remat.solvers.checkmate import solve_checkmate
from shoestring.activations.remat.solvers.closure import solve_peak, sweep
from shoestring.activations.remat.solvers.closure_order import closure_order
from shoestring.activations.remat.solvers.closure_sweep import Sweep
from shoestring.activations.remat.solvers.find import SMALL, closure_points
from shoestring.activations.remat.solvers.rotor import Table

SAMPLES: Final = 129  # points of the sweep that are simulated
BUDGETS: Final = 65  # budgets that the chain's table is asked for; it is filled once for all


def pareto_front(graph: Graph, *, n: int = 20, time_limit: float = 10.0) -> tuple[Schedule, ...]:
    """Find schedules of which none is both smaller and faster than another.

    Candidates are the plain order, the points of closure's sweep, and, where the graph can be
    cut into blocks, rotor's schedules over them. Of those that no other beats, n are chosen.
    The one left out next is the one that gives least, an area of bytes times seconds:

        (P_(i-1) - P_i) (T_(i+1) - T_i)

    with P the peaks, falling, and T the seconds, rising. Then the peak of each is a budget for
    closure's mixed programs (of a small graph, for the exact program too): they find what lies
    between the corners of the sweep, and the bound on the seconds.

    Args:
        graph: the operations.
        n: most schedules; at least 2.
        time_limit: in seconds; when it is up, the best so far are returned, with weaker bounds.

    Returns:
        The schedules by falling peak: the first is the plain one, or one that takes no longer
        and is smaller; the last has the least peak that was found. The budget of each is the
        peak that its bound holds for.

    Raises:
        ValueError: n is less than 2.
    """
    if n < 2:
        raise ValueError("a front has two ends: n must be at least 2")
    until = time.monotonic() + time_limit
    best = _Best(graph)
    best.add(graph.plain, "none")
    swept = sweep(graph, time_limit=time_limit / 4)
    for point in _spread(0, len(swept.steps), SAMPLES):
        if time.monotonic() > until:
            break
        best.add(closure_order(graph, swept.recomputed(point)), "closure")
    _add_chain(best, until)
    return _refined(best, swept, thinned(best.found, n), until)


@dataclasses.dataclass(frozen=True, slots=True)
class Candidate:
    """An order with what it takes.

    Attributes:
        peak: most bytes at one time.
        seconds: of all computations.
        order: indices of nodes.
        solver: who found it.
    """

    peak: int
    seconds: float
    order: tuple[int, ...]
    solver: str


class _Best:
    """The orders that no other one beats, by falling peak."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.found: list[Candidate] = []

    def add(self, order: Sequence[int], solver: str) -> None:
        """Simulate an order, and keep it if none beats it."""
        run = simulate(self.graph, order)
        self.keep(Candidate(run.peak, run.seconds, tuple(order), solver))

    def keep(self, new: Candidate) -> None:
        """Keep an order if none beats it, and drop those that it beats."""
        if any(c.peak <= new.peak and c.seconds <= new.seconds for c in self.found):
            return
        left = [c for c in self.found if c.peak < new.peak or c.seconds < new.seconds]
        self.found = sorted([*left, new], key=lambda c: -c.peak)

    def within(self, budget: int) -> Candidate:
        """Return the fastest order within a budget."""
        return min((c for c in self.found if c.peak <= budget), key=lambda c: c.seconds)


def thinned(candidates: Sequence[Candidate], most: int) -> list[Candidate]:
    """Return at most so many candidates: both ends, and those that give most between them.

    Args:
        candidates: by falling peak and rising seconds.
        most: at least 2.
    """
    left = list(candidates)
    while len(left) > most:
        areas = [
            (before.peak - own.peak) * (after.seconds - own.seconds)
            for before, own, after in zip(left, left[1:], left[2:], strict=False)
        ]
        del left[1 + areas.index(min(areas))]
    return left


def _spread(low: int, high: int, most: int) -> list[int]:
    """Return at most so many whole numbers from one to another, spread evenly."""
    return [int(k) for k in np.unique(np.linspace(low, high, most).round().astype(np.int64))]


def _add_chain(best: _Best, until: float) -> None:
    """Add the schedules over blocks, if the graph is a chain of some."""
    plain = best.found[0].peak
    if plain < 1 or time.monotonic() > until:
        return
    try:
        chain = Chain(best.graph, closure_points)
    except NotAChainError:
        return
    if time.monotonic() > until:
        return
    table = Table(chain.stages, plain)
    least = table.least()
    if least is None:
        return
    best.add(chain.order(least.operations), "rotor")
    # A finer table knows better what the fewest bytes are.
    finer = Table(chain.stages, max(least.peak, 1))
    for slots, low, high in ((finer, 0, least.peak), (table, least.peak, plain)):
        for budget in _spread(low, high, BUDGETS):
            found = slots.solve(budget)
            if found is not None:
                best.add(chain.order(found.operations), "rotor")
            if time.monotonic() > until:
                return


def _refined(
    best: _Best, swept: Sweep, chosen: Sequence[Candidate], until: float
) -> tuple[Schedule, ...]:
    """Search within each peak for a faster order and for a bound, and return the schedules."""
    bounds: dict[int, float] = {}
    complete = swept.complete
    for place, candidate in enumerate(chosen):
        left = until - time.monotonic()
        complete = complete and left > 0
        if left > 0:
            share = left / (len(chosen) - place)
            bounds[candidate.peak] = _searched(best, swept, candidate.peak, share)
    schedules: list[Schedule] = []
    lower = best.graph.seconds
    for budget in sorted((c.peak for c in chosen), reverse=True):
        # What no order within more bytes stays under, none within fewer does.
        lower = max(lower, bounds.get(budget, 0.0))
        own = best.within(budget)
        if schedules and schedules[-1].order == own.order:
            schedules.pop()  # a faster one was found that is smaller as well
        bound = min(lower, own.seconds)
        answer = Answer(own.order, own.peak, own.seconds, bound, own.solver, complete=complete)
        schedules.append(Schedule(best.graph, answer, budget))
    return tuple(schedules)


def _searched(best: _Best, swept: Sweep, budget: int, time_limit: float) -> float:
    """Add the orders that solvers find within a budget; return a bound on the seconds."""
    bound = best.graph.seconds
    try:
        found = solve_peak(swept, budget, time_limit=time_limit)
    except OverBudgetError:
        pass  # rotor's orders are within it, closure's are not
    else:
        bound = max(bound, found.bound)
        best.keep(Candidate(found.peak, found.seconds, found.order, found.solver))
    if len(best.graph.nodes) <= SMALL:
        try:
            exact = solve_checkmate(best.graph, budget, time_limit=time_limit)
        except OverBudgetError:
            return bound
        best.keep(Candidate(exact.peak, exact.seconds, exact.order, exact.solver))
    return bound
