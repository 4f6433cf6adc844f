"""Which solver is asked for an order, and whose answer is taken."""

from __future__ import annotations

import dataclasses
import enum
import time

from shoestring.activations.remat.answer import Answer, OverBudgetError
from shoestring.activations.remat.graph import Graph
from shoestring.activations.remat.solvers.blocks import NotAChainError
from shoestring.activations.remat.solvers.chain import solve_chain
from shoestring.activations.remat.solvers.checkmate import solve_checkmate
from shoestring.activations.remat.solvers.closure import hull, solve_peak, sweep
from shoestring.activations.remat.solvers.dtr import solve_dtr


class Solver(enum.StrEnum):
    """Who finds the order."""

    AUTO = "auto"
    CLOSURE = "closure"
    ROTOR = "rotor"
    CHECKMATE = "checkmate"
    DTR = "dtr"


SMALL = 25
"""Nodes up to which the exact program takes about a second."""


def find_order(
    graph: Graph, budget: int, *, solver: Solver = Solver.AUTO, time_limit: float = 10.0
) -> Answer:
    """Find an order within a budget.

    Args:
        graph: the operations.
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
    if solver is Solver.CHECKMATE:
        return solve_checkmate(graph, budget, time_limit=time_limit)
    if solver is Solver.DTR:
        return solve_dtr(graph, budget)
    if solver is Solver.CLOSURE:
        return solve_peak(graph, budget, time_limit=time_limit)
    if solver is Solver.ROTOR:
        return solve_chain(graph, budget, closure_points)
    return _fastest(graph, budget, time.monotonic() + time_limit)


def closure_points(graph: Graph) -> list[frozenset[int]]:
    """Return what is worth computing again inside a block: the corners of its closure hull.

    Args:
        graph: a block.
    """
    return [point.recomputed for point in hull(graph)]


def _fastest(graph: Graph, budget: int, until: float) -> Answer:
    found: list[Answer] = []
    failures: list[OverBudgetError] = []
    swept = sweep(graph, time_limit=max(0.1, until - time.monotonic()))
    try:
        found.append(solve_peak(swept, budget, time_limit=max(0.1, until - time.monotonic())))
    except OverBudgetError as error:
        failures.append(error)
    if not (found and found[0].order == graph.plain):
        try:
            found.append(solve_chain(graph, budget, closure_points))
        except NotAChainError:
            pass
        except OverBudgetError as error:
            failures.append(error)
    if len(graph.nodes) <= SMALL:
        try:
            left = max(0.1, until - time.monotonic())
            found.append(solve_checkmate(graph, budget, time_limit=left))
        except OverBudgetError as error:
            failures.append(error)
    if not found:
        raise min(failures, key=lambda error: error.least)
    best = min(found, key=lambda answer: (answer.seconds, answer.peak))
    # Only the closure's bound and that of running everything once hold for all orders.
    bounds = [answer.bound for answer in found if answer.solver == "closure"]
    bound = max([graph.seconds, *bounds])
    return dataclasses.replace(best, bound=min(bound, best.seconds))
