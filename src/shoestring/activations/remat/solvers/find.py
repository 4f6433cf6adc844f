"""Which solver is asked for an order, and whose answer is taken."""

from __future__ import annotations

import dataclasses
import enum
import time
from collections.abc import Callable
from functools import cached_property

from shoestring.activations.remat.answer import Answer, OverBudgetError
from shoestring.activations.remat.graph import Graph
from shoestring.activations.remat.solvers.blocks import NotAChainError
from shoestring.activations.remat.solvers.chain import Chain, solve_chained
from shoestring.activations.remat.solvers.checkmate import solve_checkmate
from shoestring.activations.remat.solvers.closure import hull, least_seconds, solve_peak, sweep
from shoestring.activations.remat.solvers.closure_sweep import Sweep
from shoestring.activations.remat.solvers.dtr import solve_dtr
from shoestring.activations.remat.solvers.hilp import Hilp, solve_hilp
from shoestring.activations.remat.solvers.lives import Lives, Tables
from shoestring.activations.remat.solvers.mend import take_back


class Solver(enum.StrEnum):
    """Who finds the order."""

    AUTO = "auto"
    CLOSURE = "closure"
    ROTOR = "rotor"
    CHECKMATE = "checkmate"
    HILP = "hilp"
    DTR = "dtr"


SMALL = 25
"""Nodes up to which the exact program takes about a second."""

LARGE = 4000
"""Nodes from which on the plain order is not mended where another one fits."""

CLOSE = 0.01
"""Distance from the bound, as a share of the plain step, that no further search is made for."""

NEAR = 0.02
"""The same where nothing that is computed again could be taken back instead."""

FIRM = 1e-4
"""Seconds taken back, as a share of the plain step, that are none."""

PATIENCE = 30
"""Tries without success after which the search ends."""


class Planner:
    """Finds orders of one graph within budget after budget; what is worked out once is kept.

    Example:
        >>> from shoestring.activations.remat.graph import Graph, Node, Value
        >>> nodes = (Node("f", 1.0, (), (0,)), Node("loss", 0.0, (0,), (1,)))
        >>> graph = Graph(nodes, (Value("a", 64), Value("da", 64)), 1, frozenset(), frozenset({1}))
        >>> Planner(graph).order(128).order
        (0, 1)
    """

    def __init__(self, graph: Graph) -> None:
        """Begin with nothing worked out.

        Args:
            graph: the operations.
        """
        self.graph = graph
        self._swept: Sweep | None = None
        self._chain: Chain | NotAChainError | None = None

    @cached_property
    def _plain(self) -> Lives:
        return Lives(Tables(self.graph), self.graph.plain)

    def order(
        self, budget: int, *, solver: Solver = Solver.AUTO, time_limit: float = 10.0
    ) -> Answer:
        """Find an order within a budget, as `find_order` does.

        Args:
            budget: most bytes at one time.
            solver: who finds it.
            time_limit: in seconds; when it is up, the best so far is returned.

        Returns:
            The order, with a bound on the seconds of any.

        Raises:
            OverBudgetError: no order that was found fits.
            NotAChainError: `Solver.ROTOR` was asked, and the graph cannot be cut into a chain.
        """
        until = time.monotonic() + time_limit
        if solver is Solver.AUTO:
            return _fastest(self, budget, until)
        if solver is Solver.CLOSURE:
            return solve_peak(self.swept(until), budget, time_limit=_left(until))
        if solver is Solver.CHECKMATE:
            answer = solve_checkmate(self.graph, budget, time_limit=time_limit)
        elif solver is Solver.DTR:
            answer = solve_dtr(self.graph, budget)
        elif solver is Solver.ROTOR:
            answer = self.chained(budget, until)
        else:
            answer = solve_hilp(self.graph, budget, closure_points, time_limit=time_limit)
        if answer.order == self.graph.plain:
            return answer
        return _bounded(answer, self.swept(until), budget)

    def swept(self, until: float) -> Sweep:
        """Return closure's sweep; one that time cut short is not kept.

        Args:
            until: when to stop, by `time.monotonic`.
        """
        if self._swept is not None:
            return self._swept
        swept = sweep(self.graph, time_limit=_left(until))
        if swept.complete:
            self._swept = swept
        return swept

    def chained(self, budget: int, until: float) -> Answer:
        """Return the fastest schedule of the graph as a chain.

        Args:
            budget: most bytes at one time.
            until: when to stop, by `time.monotonic`.

        Raises:
            NotAChainError: it cannot be cut into one, or the time was up before it was.
            OverBudgetError: no schedule fits.
        """
        plain = self.graph.plain
        if (lives := self._plain).peak <= budget:
            seconds = lives.seconds
            return Answer(plain, lives.peak, seconds, seconds, "rotor", complete=True)
        if self._chain is None:
            try:
                self._chain = Chain(self.graph, closure_points, until=until)
            except NotAChainError as error:
                self._chain = error
        if isinstance(self._chain, NotAChainError):
            raise self._chain
        return solve_chained(self._chain, budget)


def find_order(
    graph: Graph | Planner, budget: int, *, solver: Solver = Solver.AUTO, time_limit: float = 10.0
) -> Answer:
    """Find an order within a budget.

    Args:
        graph: the operations; or a planner, which is faster when it is asked again.
        budget: most bytes at one time.
        solver: who finds it; `Solver.AUTO` asks those that suit the graph and takes the fastest
            order.
        time_limit: in seconds; when it is up, the best so far is returned.

    Returns:
        The order, with a bound on the seconds of any.

    Raises:
        OverBudgetError: no order that was found fits; it says the least bytes that one reaches.
        NotAChainError: `Solver.ROTOR` was asked, and the graph cannot be cut into a chain.
    """
    planner = graph if isinstance(graph, Planner) else Planner(graph)
    return planner.order(budget, solver=solver, time_limit=time_limit)


def closure_points(graph: Graph) -> list[frozenset[int]]:
    """Return what is worth computing again inside a block: the corners of its closure hull.

    Args:
        graph: a block.
    """
    return [point.recomputed for point in hull(graph)]


def _bounded(answer: Answer, swept: Sweep, budget: int, bound: float = 0.0) -> Answer:
    """Return an answer with a bound on all orders, not only on those of its solver's kind."""
    bound = max(bound, least_seconds(swept, budget))
    return dataclasses.replace(answer, bound=min(bound, answer.seconds))


class _Asking:
    """The answers of several solvers to one question.

    Attributes:
        found: what they found.
        failures: of those that found nothing within the budget.
    """

    def __init__(self) -> None:
        self.found: list[Answer] = []
        self.failures: list[OverBudgetError] = []

    def ask(self, solve: Callable[[], Answer]) -> None:
        """Ask a solver, and note what it says."""
        try:
            self.found.append(solve())
        except NotAChainError:
            pass
        except OverBudgetError as error:
            self.failures.append(error)

    def best(self) -> Answer:
        """Return the fastest answer.

        Raises:
            OverBudgetError: there is none; of the failures that of the fewest bytes.
        """
        if self.found:
            return min(self.found, key=lambda answer: (answer.seconds, answer.peak))
        nearest = min(self.failures, key=lambda error: error.least)
        nearest.proven = any(error.proven for error in self.failures)
        raise nearest


def _left(until: float) -> float:
    return max(0.1, until - time.monotonic())


def _fastest(planner: Planner, budget: int, until: float) -> Answer:
    graph, asking = planner.graph, _Asking()
    swept = planner.swept(until)
    asking.ask(lambda: solve_peak(swept, budget, time_limit=_left(until)))
    if any(answer.order == graph.plain for answer in asking.found):
        return asking.found[0]
    bound = max([least_seconds(swept, budget), *(answer.bound for answer in asking.found)])
    small = len(graph.nodes) <= SMALL
    if not small and _is_enough(asking, swept, budget, bound, until):
        return _bounded(asking.best(), swept, budget, bound)
    asking.ask(lambda: planner.chained(budget, until))
    if small:
        asking.ask(lambda: solve_checkmate(graph, budget, time_limit=_left(until)))
    if not _is_close(graph, asking.found, bound):
        asking.ask(lambda: _mended(graph, budget, _left(until), asking, bound))
    return _bounded(asking.best(), swept, budget, bound)


def _is_close(graph: Graph, found: list[Answer], bound: float, distance: float = CLOSE) -> bool:
    return any(answer.seconds <= bound + distance * graph.seconds for answer in found)


def _is_enough(asking: _Asking, swept: Sweep, budget: int, bound: float, until: float) -> bool:
    """Return whether closure's answer is so good that no other solver is asked.

    It is near its bound; or it is not far, and what it computes again is needed to the last
    node: where it is not, an order of another kind is often much better.
    """
    graph = swept.parts.graph
    if _is_close(graph, asking.found, bound) or not asking.found:
        return bool(asking.found)
    if not _is_close(graph, asking.found, bound, NEAR):
        return False
    found = asking.found[0]
    taken = take_back(Lives(swept.tables, found.order), budget, until=until)
    return taken.seconds >= found.seconds - FIRM * graph.seconds


def _mended(graph: Graph, budget: int, time_limit: float, asking: _Asking, bound: float) -> Answer:
    """Mend what was found, node by node; the clusters are asked where nothing fits."""
    hilp = Hilp(graph, budget, time_limit=time_limit)
    for answer in asking.found:
        hilp.consider(answer.order)
    if not asking.found or len(graph.nodes) < LARGE:
        hilp.consider(graph.plain)
    for error in asking.failures:
        if not hilp.fits and error.order is not None:
            hilp.consider(error.order)
    hilp.rescue()
    if not hilp.fits:
        hilp.clusters(closure_points)
    if hilp.fits and not _is_close(graph, [hilp.answer()], bound):
        hilp.improve(PATIENCE)
    return hilp.answer()
