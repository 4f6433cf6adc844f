"""The program over clusters against Checkmate and a search; the solver on graphs of any shape."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shoestring.activations.remat.answer import OverBudgetError
from shoestring.activations.remat.graph import Graph
from shoestring.activations.remat.simulate import simulate
from shoestring.activations.remat.solvers.blocks import NotAChainError
from shoestring.activations.remat.solvers.checkmate import solve_checkmate
from shoestring.activations.remat.solvers.find import Solver, closure_points, find_order
from shoestring.activations.remat.solvers.hilp import Hilp, solve_hilp
from shoestring.activations.remat.solvers.hilp_model import best_runs
from shoestring.activations.remat.solvers.hilp_top import coarsen, forward_edges
from tests.oracles.hilp import cheapest_runs
from tests.oracles.remat_graphs import chain, differentiated, graphs, sparse

SEARCHED = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def u_net(depth: int, width: int) -> Graph:
    """Levels of `width` nodes, each half the size of the one above; what goes down comes back."""
    parents: list[list[int]] = [[]]
    sizes, seconds, skips = [64], [1.0], []

    def add(above: list[int], size: int, cost: float) -> None:
        parents.append(above)
        sizes.append(size)
        seconds.append(cost)

    def level(size: int) -> None:
        for at in range(width):
            add([len(parents) - 1], size, 0.5 if at % 2 else 4.0)

    for down in range(depth):
        level(64 >> down)
        skips.append(len(parents) - 1)
        add([skips[-1]], 64 >> (down + 1), 0.5)
    level(64 >> depth)
    for up in reversed(range(depth)):
        add([len(parents) - 1, skips.pop()], 128 >> up, 0.5)
        level(64 >> up)
    return differentiated(parents, sizes=sizes, seconds=seconds)


def woven(count: int, reach: int) -> Graph:
    """Each node reads the `reach` nodes before it."""
    parents = [list(range(max(0, i - reach), i)) for i in range(count)]
    seconds = [1.0 + i % 3 for i in range(count)]
    return differentiated(parents, sizes=[8] * count, seconds=seconds)


def budget_of(graph: Graph, share: float) -> int:
    return max(1, int(simulate(graph, graph.plain).peak * share))


# --- the program ----------------------------------------------------------------------------


@given(graphs(most=4), st.floats(0.5, 1.0))
@SEARCHED
def test_clusters_of_one_node_with_one_option_are_checkmate(graph: Graph, share: float) -> None:
    budget = budget_of(graph, share)
    top = coarsen(graph, closure_points, clusters=graph.border, options=1)
    runs, bound, complete = best_runs(top, budget, end=time.monotonic() + 20, gap=0.0)
    assert complete
    try:
        best = solve_checkmate(graph, budget, time_limit=20.0, gap=0.0)
    except OverBudgetError:
        assert runs is None
        return
    assert runs is not None
    found = simulate(graph, top.order(runs))
    assert found.peak <= budget
    assert found.seconds == pytest.approx(best.seconds, rel=1e-9)
    assert bound == pytest.approx(best.seconds, rel=1e-5)


@given(sparse(least=2, most=4), st.integers(1, 3), st.integers(2, 3), st.floats(0.6, 1.2))
@SEARCHED
def test_the_program_equals_a_search_through_all_runs(
    graph: Graph, clusters: int, options: int, share: float
) -> None:
    top = coarsen(graph, closure_points, clusters=clusters, options=options)
    top.graph.check()
    budget = budget_of(graph, share) + top.pinned
    runs, bound, _ = best_runs(top, budget, end=time.monotonic() + 20, gap=0.0)
    best = cheapest_runs(top, budget - top.pinned)
    if runs is None:
        assert best == math.inf
        return
    assert sum(top.modes[node][mode].seconds for node, mode in runs) == pytest.approx(best)
    assert bound == pytest.approx(best, rel=1e-5)


@given(sparse(least=2, most=9), st.integers(1, 4), st.floats(0.5, 1.2))
@SEARCHED
def test_runs_become_orders_within_the_bytes_that_the_program_counts(
    graph: Graph, clusters: int, share: float
) -> None:
    top = coarsen(graph, closure_points, clusters=clusters)
    budget = budget_of(graph, share)
    runs, _, _ = best_runs(top, budget, end=time.monotonic() + 20, gap=0.01)
    if runs is not None:
        assert simulate(graph, top.order(runs)).peak <= budget


def test_equal_clusters_are_worked_out_once() -> None:
    graph = chain(64)
    top = coarsen(graph, closure_points, clusters=16)
    assert len(top.edges) == 17
    assert top.solved <= 4


def test_clusters_end_where_little_goes_on() -> None:
    sizes = [9, 9, 1, 9, 9, 1, 9, 9, 9]
    parents = [[i - 1] if i else [] for i in range(9)]
    graph = differentiated(parents, sizes=sizes, seconds=[1.0] * 9)
    assert forward_edges(graph, 2) == (0, 6, 9)


# --- the solver -----------------------------------------------------------------------------


@given(sparse(most=6), st.floats(0.3, 1.1))
@settings(SEARCHED, max_examples=15)
def test_answers_are_within_the_budget_and_no_worse_than_their_start(
    graph: Graph, share: float
) -> None:
    budget = budget_of(graph, share)
    try:
        start = find_order(graph, budget, solver=Solver.CLOSURE)
    except OverBudgetError as error:
        assert error.order is not None
        try:
            solve_hilp(graph, budget, closure_points, starts=[error.order], patience=2)
        except OverBudgetError as other:
            assert other.order is not None
            assert simulate(graph, other.order).peak == other.least <= error.least
        return
    answer = solve_hilp(graph, budget, closure_points, starts=[start.order], patience=2)
    assert simulate(graph, answer.order).peak == answer.peak <= budget
    assert answer.seconds <= start.seconds * (1 + 1e-9)


def test_what_fits_runs_as_it_is() -> None:
    graph = u_net(2, 3)
    assert solve_hilp(graph, budget_of(graph, 1.0), closure_points).order == graph.plain


def test_a_u_net_is_fitted_better_than_by_any_other() -> None:
    graph = u_net(3, 4)
    budget = budget_of(graph, 0.45)
    answer = solve_hilp(graph, budget, closure_points, patience=10)
    assert answer.peak <= budget
    assert graph.seconds < answer.seconds < 1.1 * graph.seconds
    for other in (Solver.CLOSURE, Solver.ROTOR, Solver.CHECKMATE, Solver.DTR):
        try:
            found = find_order(graph, budget, solver=other, time_limit=1.0)
        except (OverBudgetError, NotAChainError):
            continue
        # the exact program proves that no staged order is better
        assert found.seconds > answer.seconds or (
            other is Solver.CHECKMATE and found.seconds == pytest.approx(answer.seconds)
        )


def test_what_cannot_be_mended_is_computed_anew() -> None:
    """Each node reads four before it: to drop one value alone helps nothing in the end."""
    graph = woven(30, 4)
    search = Hilp(graph, budget_of(graph, 0.35), time_limit=60.0)
    search.consider(graph.plain)
    assert not search.fits
    search.rescue()
    assert search.fits
    before = search.answer()
    assert before.peak <= budget_of(graph, 0.35)
    search.improve(10)
    assert search.answer().seconds < before.seconds


def test_when_time_is_up_the_best_so_far_is_returned() -> None:
    graph = u_net(4, 6)
    begun = time.monotonic()
    budget = budget_of(graph, 0.6)
    start = find_order(graph, budget, solver=Solver.CLOSURE)
    answer = solve_hilp(graph, budget, closure_points, time_limit=0.0, starts=[start.order])
    assert time.monotonic() - begun < 20.0
    assert not answer.complete
    assert answer.seconds <= start.seconds


def test_the_least_that_is_reached_is_said() -> None:
    graph = u_net(2, 3)
    with pytest.raises(OverBudgetError, match="the least peak found is") as caught:
        solve_hilp(graph, 10, closure_points)
    assert caught.value.order is not None
    run = simulate(graph, caught.value.order)
    assert run.peak == caught.value.least > 10
    assert caught.value.node == caught.value.order[run.at]


def test_two_runs_find_the_same_order() -> None:
    graph = u_net(2, 3)
    budget = budget_of(graph, 0.6)
    orders = {solve_hilp(graph, budget, closure_points, patience=10).order for _ in range(2)}
    assert len(orders) == 1
