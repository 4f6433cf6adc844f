"""Orders that are mended: where values live, what is dropped, and what is taken back."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.activations.remat.answer import OverBudgetError
from shoestring.activations.remat.graph import Graph, Node, Value
from shoestring.activations.remat.simulate import simulate
from shoestring.activations.remat.solvers.checkmate import solve_checkmate
from shoestring.activations.remat.solvers.closure_order import closure_order
from shoestring.activations.remat.solvers.lives import Lives, Tables
from shoestring.activations.remat.solvers.mend import lean_order, mend, relieve, search, take_back
from tests.oracles.remat_graphs import chain, differentiated, graphs, sparse
from tests.oracles.remat_orders import bytes_during

LONG = math.inf


@st.composite
def orders(draw: st.DrawFn, *, most: int = 7) -> tuple[Graph, tuple[int, ...]]:
    """Draw a graph and an order in which some nodes run again, some of them several times."""
    graph = draw(sparse(least=2, most=most))
    lean = lean_order(graph, most=10**6)
    assert lean is not None
    if draw(st.booleans()):
        return graph, lean
    can = sorted(graph.repeatable)
    return graph, closure_order(graph, frozenset(k for k in can if draw(st.booleans())))


# --- lives ----------------------------------------------------------------------------------


@given(orders())
def test_bytes_are_those_of_the_simulation(given_: tuple[Graph, tuple[int, ...]]) -> None:
    graph, order = given_
    lives = Lives(Tables(graph), order)
    assert lives.during.tolist() == bytes_during(graph, order)
    run = simulate(graph, order)
    assert lives.peak == run.peak
    assert lives.seconds == run.seconds


def test_results_stay_to_the_end() -> None:
    graph = chain(5)
    graph = Graph(graph.nodes, graph.values, graph.border, graph.held, graph.results | {0, 8})
    run = simulate(graph, graph.plain)
    assert Lives(Tables(graph), graph.plain).during.tolist() == list(run.bytes_during)


@given(orders(), st.data())
def test_a_value_is_there_while_something_reads_it_again(
    given_: tuple[Graph, tuple[int, ...]], data: st.DataObject
) -> None:
    graph, order = given_
    lives = Lives(Tables(graph), order)
    value = data.draw(st.sampled_from([v for v in range(len(graph.values)) if v not in graph.held]))
    position = data.draw(st.integers(0, len(order)))
    made = any(value in graph.nodes[k].makes for k in order[:position])
    after = [
        (value in graph.nodes[k].reads, value in graph.nodes[k].makes) for k in order[position:]
    ]
    first = next((read for read, makes in after if read or makes), value in graph.results)
    assert lives.there(value, position) == (made and first)


# --- dropping and taking back ---------------------------------------------------------------


@given(orders(), st.floats(0.3, 1.0), st.booleans())
@settings(deadline=None)
def test_what_is_mended_runs_and_counts(
    given_: tuple[Graph, tuple[int, ...]], share: float, noisy: bool
) -> None:
    graph, order = given_
    budget = int(simulate(graph, order).peak * share)
    lives = Lives(Tables(graph), order)
    noise = np.random.default_rng(1) if noisy else None
    relieved = relieve(lives, budget, until=LONG, noise=noise)
    assert simulate(graph, relieved.order).peak == relieved.peak <= lives.peak
    if relieved.peak <= budget:
        taken = take_back(relieved, budget, until=LONG)
        run = simulate(graph, taken.order)
        assert run.peak <= budget
        assert run.seconds <= relieved.seconds + 1e-9


@given(orders())
@settings(deadline=None)
def test_with_room_for_all_everything_is_taken_back(
    given_: tuple[Graph, tuple[int, ...]],
) -> None:
    graph, order = given_
    taken = take_back(Lives(Tables(graph), order), 10**9, until=LONG)
    assert sorted(taken.order) == list(range(len(graph.nodes)))


def test_what_cannot_be_made_again_is_held_for_what_needs_it() -> None:
    """The mask is drawn; the product of it is large and can be made again."""
    nodes = (
        Node("x", 4.0, (), (0,)),
        Node("mask", 1.0, (), (1,), 0, False),
        Node("product", 1.0, (0, 1), (2,)),
        Node("end", 1.0, (0,), (3,)),
        Node("loss", 0.0, (3,), (4,)),
        Node("first", 1.0, (4, 0), (5,), 50),
        Node("second", 1.0, (5, 0, 2), (6,)),
    )
    sizes = (10, 10, 40, 10, 10, 10, 10)
    values = tuple(Value(str(k), size) for k, size in enumerate(sizes))
    graph = Graph(nodes, values, 4, frozenset(), frozenset({6}))
    graph.check()
    assert simulate(graph, graph.plain).peak == 120
    mended = relieve(Lives(Tables(graph), graph.plain), 90, until=LONG)
    assert mended.peak <= 90
    assert mended.order.count(1) == 1
    assert mended.order[-2:] == [2, 6]


def test_no_more_is_taken_back_than_fits() -> None:
    graph = chain(8)
    lean = lean_order(graph, most=1000)
    assert lean is not None
    lives = Lives(Tables(graph), lean)
    taken = take_back(lives, lives.peak + 1, until=LONG)
    assert taken.peak <= lives.peak + 1
    assert graph.seconds < taken.seconds < lives.seconds


@pytest.mark.parametrize("share", [0.8, 0.65, 0.5, 0.4])
def test_a_chain_is_mended_as_well_as_the_exact_program_solves_it(share: float) -> None:
    graph = chain(8)
    budget = int(simulate(graph, graph.plain).peak * share)
    lean = lean_order(graph, most=1000)
    assert lean is not None
    tables = Tables(graph)
    found = [mend(Lives(tables, order), budget, until=LONG) for order in (graph.plain, lean)]
    best = min((lives for lives in found if lives.peak <= budget), key=lambda lives: lives.seconds)
    best = search(best, budget, until=LONG, patience=30)
    exact = solve_checkmate(graph, budget, time_limit=20.0)
    assert best.seconds == pytest.approx(exact.seconds, rel=1e-9)


@given(graphs(least=2, most=4), st.floats(0.5, 1.0))
@settings(deadline=None, max_examples=30)
def test_where_an_order_fits_one_is_found_on_small_graphs(graph: Graph, share: float) -> None:
    budget = max(1, int(simulate(graph, graph.plain).peak * share))
    try:
        exact = solve_checkmate(graph, budget, time_limit=20.0, gap=0.0)
    except OverBudgetError:
        return
    tables, lean = Tables(graph), lean_order(graph, most=1000)
    assert lean is not None
    found = [mend(Lives(tables, order), budget, until=LONG) for order in (graph.plain, lean)]
    assert min(lives.peak for lives in found) <= budget
    fitting = [lives.seconds for lives in found if lives.peak <= budget]
    assert min(fitting) >= exact.seconds - 1e-9


def test_searching_never_makes_it_worse_and_ends() -> None:
    graph = differentiated(
        [[], [0], [1], [0, 2], [3], [2, 4], [5], [1, 6]],
        sizes=[4, 8, 2, 6, 4, 8, 2, 4],
        seconds=[3.0, 1.0, 2.0, 5.0, 1.0, 2.0, 4.0, 1.0],
    )
    tables, plain = Tables(graph), simulate(graph, graph.plain).peak
    for share in (0.9, 0.8, 0.7):
        budget = int(plain * share)
        first = mend(Lives(tables, graph.plain), budget, until=LONG)
        if first.peak <= budget:
            found = search(first, budget, until=LONG, patience=20)
            assert found.peak <= budget
            assert found.seconds <= first.seconds
            assert search(first, budget, until=time.monotonic() - 1) is first


def test_the_lean_order_keeps_nothing_that_can_be_made_again() -> None:
    graph = chain(6)
    lean = lean_order(graph, most=1000)
    assert lean is not None
    assert len(lean) == 13 + 6 + 5 + 4 + 3 + 2 + 1
    assert graph.sizes(simulate(graph, lean).kept) == 1  # what the border reads
    assert lean_order(graph, most=20) is None
