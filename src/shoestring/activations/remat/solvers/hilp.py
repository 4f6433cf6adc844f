"""Solve a graph of any shape in two levels: a mixed program over clusters, then node by node."""

from __future__ import annotations

import time
from collections.abc import Sequence

from shoestring.activations.remat.answer import Answer, OverBudgetError
from shoestring.activations.remat.graph import Graph
from shoestring.activations.remat.simulate import simulate
from shoestring.activations.remat.solvers.checkmate import without_waste
from shoestring.activations.remat.solvers.hilp_model import best_runs
from shoestring.activations.remat.solvers.hilp_top import Points, coarsen
from shoestring.activations.remat.solvers.lives import Lives, Tables
from shoestring.activations.remat.solvers.mend import lean_order, mend, search

LEVELS = ((10, 1.0), (16, 1.0), (16, 1.25), (10, 1.25), (26, 1.1))
"""Clusters of the top, and the budget that it is given as a share of the true one."""

GAP = 0.01  # of the programs over the top
LARGE = 200  # nodes for each drop at a time
LONGEST = 12_000  # positions of an order that computes everything anew


def solve_hilp(
    graph: Graph,
    budget: int,
    points: Points,
    *,
    time_limit: float = 10.0,
    starts: Sequence[Sequence[int]] = (),
    patience: int = 100,
) -> Answer:
    """Find an order of a graph that need not be a chain: U-Nets, encoders with decoders.

    The forward is cut into a few clusters with small interfaces, each with its backward and
    with some ways to run them. When each cluster runs, and how, is a mixed program in which
    everything may be computed any number of times. A cluster runs in one go there, which takes
    more memory than need be; so the program is solved at budgets above the true one too. Then
    the order is mended node by node: values are dropped where it does not fit, and computations
    are taken back where it does. What starts are given is mended as well, and so is the plain
    order. The best is undone in parts and mended in other ways until the time is up, or nothing
    better has been found for a while.

    Args:
        graph: the operations.
        budget: most bytes at one time.
        points: gives for a cluster's graph the sets of nodes that its backward may run again.
        time_limit: in seconds; when it is up, the best so far is returned.
        starts: orders to begin with; the answer takes no longer than one of them that fits.
        patience: tries without success after which the search ends.

    Returns:
        An order with its true peak and seconds. Its bound is that of running each node once.

    Raises:
        OverBudgetError: no order that was found fits; it says the least peak.

    Source:
        Shilova et al., "HiRemate: Hierarchical Approach for Efficient Re-materialization of
        Neural Networks", ICML 2025.
    """
    return Hilp(graph, budget, time_limit=time_limit).solve(points, starts, patience)


class Hilp:
    """A search under way: the best order so far."""

    def __init__(self, graph: Graph, budget: int, *, time_limit: float) -> None:
        """Begin with nothing.

        Args:
            graph: the operations.
            budget: most bytes at one time.
            time_limit: in seconds, from now on.
        """
        self.graph = graph
        self.budget = budget
        self.until = time.monotonic() + time_limit
        self.best: Lives | None = None
        self._tables = Tables(graph)

    def solve(self, points: Points, starts: Sequence[Sequence[int]], patience: int) -> Answer:
        """Do all that there is to do.

        Args:
            points: as in `solve_hilp`.
            starts: as in `solve_hilp`.
            patience: as in `solve_hilp`.
        """
        for start in (self.graph.plain, *starts):
            self.consider(start)
        self.rescue()
        self.clusters(points)
        self.improve(patience)
        return self.answer()

    def rescue(self) -> None:
        """Where nothing fits, begin with computing everything anew, and take back most of it."""
        order = None if self.fits else lean_order(self.graph, most=LONGEST)
        if order is not None:
            self.consider(order)

    def improve(self, patience: int) -> None:
        """Undo parts of the best order and mend them in other ways.

        Args:
            patience: as in `solve_hilp`.
        """
        if self.best is not None and self.fits:
            self.best = search(self.best, self.budget, until=self.until, patience=patience)

    @property
    def fits(self) -> bool:
        """Whether the best order is within the budget."""
        return self.best is not None and self.best.peak <= self.budget

    @property
    def _done(self) -> bool:
        once = self.graph.seconds * (1 + 1e-9)
        return self.fits and self.best is not None and self.best.seconds <= once

    def consider(self, order: Sequence[int]) -> None:
        """Mend an order, and keep it if it is the best so far.

        Args:
            order: of the graph; it need not fit.
        """
        lives = Lives(self._tables, order)
        self._keep(lives)
        if self._done:
            return
        batch = max(1, len(self.graph.nodes) // LARGE)
        lives = Lives(self._tables, without_waste(self.graph, order))
        self._keep(mend(lives, self.budget, until=self.until, batch=batch))

    def _keep(self, lives: Lives) -> None:
        if self.best is None or self._rank(lives) < self._rank(self.best):
            self.best = lives

    def _rank(self, lives: Lives) -> tuple[float, ...]:
        if lives.peak <= self.budget:
            return (0.0, lives.seconds, lives.peak)
        return (1.0, lives.peak, lives.seconds)

    def clusters(self, points: Points) -> None:
        """Solve the program over clusters, of several numbers and budgets.

        Args:
            points: as in `solve_hilp`.
        """
        span = self.until - time.monotonic()
        for count, share in LEVELS:
            left = self.until - time.monotonic()
            if left <= span / 3 or self._done:
                return
            top = coarsen(self.graph, points, clusters=count)
            end = time.monotonic() + min(span / 4, left - span / 3)
            runs, _, _ = best_runs(top, int(self.budget * share), end=end, gap=GAP)
            if runs is not None:
                self.consider(top.order(runs))

    def answer(self) -> Answer:
        """Return the best order.

        Raises:
            OverBudgetError: it does not fit.
        """
        assert self.best is not None, "the plain order is always considered"
        order = tuple(self.best.order)
        run = simulate(self.graph, order)
        if run.peak <= self.budget:
            bound = min(self.graph.seconds, run.seconds)
            complete = time.monotonic() < self.until
            return Answer(order, run.peak, run.seconds, bound, "hilp", complete)
        name = self.graph.nodes[order[run.at]].name
        raise OverBudgetError(
            f"the least peak found is {run.peak} bytes, while {name} runs; "
            f"{self.budget} are allowed",
            least=run.peak,
            node=order[run.at],
            order=order,
        )
