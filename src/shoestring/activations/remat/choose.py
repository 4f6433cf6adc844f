"""How the budget that a user gives becomes a schedule."""

from __future__ import annotations

import dataclasses

from shoestring.activations.remat.answer import Answer, OverBudgetError
from shoestring.activations.remat.captured import Schedule
from shoestring.activations.remat.graph import Graph
from shoestring.activations.remat.simulate import simulate
from shoestring.activations.remat.solvers.find import Solver, find_order
from shoestring.core.budget import Budget
from shoestring.core.errors import InfeasibleError
from shoestring.core.units import format_bytes


def plain_schedule(graph: Graph) -> Schedule:
    """Return the schedule that computes nothing again.

    Args:
        graph: the operations.
    """
    run = simulate(graph, graph.plain)
    answer = Answer(graph.plain, run.peak, run.seconds, run.seconds, "none", complete=True)
    return Schedule(graph, answer, run.peak)


def schedule_graph(
    graph: Graph, *, activations: str | int, solver: Solver, time_limit: float
) -> Schedule:
    """Find a schedule for a graph.

    Args:
        graph: the operations.
        activations: most bytes, or a percentage of the plain order's peak.
        solver: who finds it.
        time_limit: in seconds.

    Raises:
        InfeasibleError: no order fits.
    """
    plain = simulate(graph, graph.plain)
    budget = Budget(activations=activations).activation_bytes(plain_peak=plain.peak)
    assert budget is not None, "it was given"
    if plain.peak <= budget:
        return dataclasses.replace(plain_schedule(graph), budget=budget)
    try:
        answer = find_order(graph, budget, solver=solver, time_limit=time_limit)
    except OverBudgetError as error:
        raise InfeasibleError(
            f"no order fits {format_bytes(budget)} of activations: the least that was found is "
            f"{format_bytes(error.least)}, bound by {graph.nodes[error.node].name}.",
            hint=f"give activations={error.least} or more, or a smaller batch.",
        ) from error
    return Schedule(graph, answer, budget)
