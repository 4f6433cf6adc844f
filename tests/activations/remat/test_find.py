"""Which solver is asked, what bound its answer has, and what is said where nothing fits."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shoestring.activations.remat.answer import Answer, OverBudgetError
from shoestring.activations.remat.graph import Graph
from shoestring.activations.remat.simulate import simulate
from shoestring.activations.remat.solvers.blocks import NotAChainError
from shoestring.activations.remat.solvers.checkmate import solve_checkmate
from shoestring.activations.remat.solvers.find import Planner, Solver, find_order
from tests.oracles.remat_graphs import chain, differentiated, graphs
from tests.oracles.remat_orders import cheapest_order

SEARCHED = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
ONES = [solver for solver in Solver if solver is not Solver.AUTO]


def asked(graph: Graph, budget: int, solver: Solver) -> Answer | None:
    """Return what a solver finds; None where it finds nothing."""
    try:
        return find_order(graph, budget, solver=solver, time_limit=3.0)
    except (OverBudgetError, NotAChainError):
        return None


@given(graphs(most=4), st.floats(0.4, 1.0))
@SEARCHED
def test_auto_is_as_fast_as_any_and_bounds_hold_for_all_orders(graph: Graph, share: float) -> None:
    budget = max(1, int(simulate(graph, graph.plain).peak * share))
    best = cheapest_order(graph, budget, staged=False)
    auto = asked(graph, budget, Solver.AUTO)
    assert (auto is None) == (best is None)
    if auto is None or best is None:
        return
    least = simulate(graph, best).seconds
    assert auto.seconds == pytest.approx(least)
    for solver in Solver:
        answer = asked(graph, budget, solver)
        if answer is not None:
            assert simulate(graph, answer.order).peak == answer.peak <= budget
            assert answer.bound <= least * (1 + 1e-9)
            assert answer.seconds >= auto.seconds * (1 - 1e-9)


@pytest.mark.parametrize("solver", list(Solver))
def test_each_solver_leaves_what_fits_as_it_is(solver: Solver) -> None:
    graph = chain(5)
    answer = find_order(graph, simulate(graph, graph.plain).peak, solver=solver)
    assert answer.order == graph.plain
    assert answer.bound == answer.seconds == graph.seconds


@pytest.mark.parametrize("solver", ONES)
def test_a_solver_by_name_is_the_one_that_answers(solver: Solver) -> None:
    graph = chain(8)
    answer = find_order(graph, int(simulate(graph, graph.plain).peak * 0.8), solver=solver)
    assert answer.solver == solver.value
    assert graph.seconds <= answer.bound <= answer.seconds


def test_other_bounds_than_that_of_running_all_once_reach_every_solver() -> None:
    """Half of the bytes of a long chain: some must be made again, and all solvers say so."""
    graph = differentiated(
        [[i - 1] if i else [] for i in range(10)], sizes=[10] * 10, seconds=[1.0] * 10
    )
    budget = int(simulate(graph, graph.plain).peak * 0.6)
    bounds = {
        solver: answer.bound
        for solver in Solver
        if (answer := asked(graph, budget, solver)) is not None
    }
    assert len(bounds) >= 4
    assert min(bounds.values()) > graph.seconds
    assert max(bounds.values()) <= solve_checkmate(graph, budget).seconds + 1e-9


@pytest.mark.parametrize("solver", [Solver.AUTO, Solver.CLOSURE, Solver.ROTOR])
def test_a_planner_that_was_asked_before_answers_as_a_new_one(solver: Solver) -> None:
    graph = chain(20)
    peak = simulate(graph, graph.plain).peak
    planner = Planner(graph)
    for share in (0.6, 0.9, 1.0, 0.75, 0.6):
        budget = int(peak * share)
        own = find_order(planner, budget, solver=solver)
        assert own == find_order(graph, budget, solver=solver)
        assert simulate(graph, own.order).peak == own.peak <= budget


def test_where_nothing_fits_the_least_of_all_is_said() -> None:
    graph = chain(12)
    with pytest.raises(OverBudgetError) as caught:
        find_order(graph, 3)
    assert caught.value.order is not None
    run = simulate(graph, caught.value.order)
    assert run.peak == caught.value.least
    assert run.peak <= min(
        error.least for solver in (Solver.CLOSURE, Solver.ROTOR) for error in [over(graph, solver)]
    )
    assert find_order(graph, caught.value.least).peak <= caught.value.least


def over(graph: Graph, solver: Solver) -> OverBudgetError:
    with pytest.raises(OverBudgetError) as caught:
        find_order(graph, 3, solver=solver)
    return caught.value


NAMED = {
    "chain": chain(12),
    "cheap and dear": differentiated(
        [[i - 1] if i else [] for i in range(12)],
        sizes=[4 + i % 3 for i in range(12)],
        seconds=[8.0 if i % 3 == 0 else 1.0 for i in range(12)],
    ),
    "residual": differentiated(
        [[], *([i - 1] if i % 3 else [i - 3, i - 1] for i in range(1, 12))],
        sizes=[4, 8, 8, 4, 8, 8, 4, 8, 8, 4, 8, 8],
        seconds=[1.0, 4.0, 4.0] * 4,
    ),
}


@pytest.mark.parametrize("share", [0.85, 0.7, 0.55])
@pytest.mark.parametrize("name", NAMED)
def test_up_to_25_nodes_it_is_within_3_per_cent_of_the_exact_program(
    name: str, share: float
) -> None:
    graph = NAMED[name]
    budget = int(simulate(graph, graph.plain).peak * share)
    exact = asked(graph, budget, Solver.CHECKMATE)
    hilp = asked(graph, budget, Solver.HILP)
    assert (exact is None) == (hilp is None)
    if exact is not None and hilp is not None:
        assert hilp.seconds <= 1.03 * exact.seconds
