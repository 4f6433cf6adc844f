"""Checkmate against a search through all staged orders, and figures that others found."""

from __future__ import annotations

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shoestring.activations.remat.answer import OverBudgetError
from shoestring.activations.remat.graph import Graph, Node, Value
from shoestring.activations.remat.simulate import simulate
from shoestring.activations.remat.solvers.checkmate import (
    _Unit,
    least_peak,
    solve_checkmate,
    without_waste,
)
from tests.oracles.remat_graphs import chain, differentiated, graphs, sparse
from tests.oracles.remat_orders import cheapest_order

SEARCHED = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def linear_net(count: int) -> Graph:
    """The nets of the paper's program: a node takes one second and its value one byte.

    Backward node count + 1 + k reads backward node count + k and forward node count - 1 - k;
    no gradient stays.
    """
    nodes = [Node(f"f{i}", 1.0, (i - 1,) if i else (), (i,)) for i in range(count)]
    nodes.append(Node("loss", 1.0, (count - 1,), (count,)))
    for k in range(count):
        reads = (count + k, count - 1 - k)
        nodes.append(Node(f"b{k}", 1.0, reads, (count + 1 + k,)))
    values = tuple(Value(node.name, 1) for node in nodes)
    graph = Graph(tuple(nodes), values, count, frozenset(), frozenset())
    graph.check()
    return graph


@st.composite
def measured(draw: st.DrawFn) -> Graph:
    """Draw a graph of sizes and seconds as they are measured: great, and of no common unit."""
    plain = draw(graphs(most=3))
    sizes = st.integers(1, 2**34)
    values = [Value(value.name, draw(sizes) if value.size else 0) for value in plain.values]
    seconds = st.floats(1e-7, 1e-1)
    nodes = [node._replace(seconds=draw(seconds)) for node in plain.nodes]
    return Graph(tuple(nodes), tuple(values), plain.border, plain.held, plain.results)


# --- against a search -----------------------------------------------------------------------


def _assert_best_at_every_budget(graph: Graph) -> None:
    """What is cheapest at a budget is cheapest at every budget from its peak up to that."""
    budget = simulate(graph, graph.plain).peak
    while (order := cheapest_order(graph, budget, staged=True)) is not None:
        best = simulate(graph, order)
        answer = solve_checkmate(graph, best.peak, time_limit=20.0, gap=0.0)
        assert answer.complete
        assert answer.seconds == pytest.approx(best.seconds, rel=1e-9)
        assert answer.bound == pytest.approx(best.seconds, rel=1e-5)
        assert answer.bound <= answer.seconds
        assert simulate(graph, answer.order).peak == answer.peak <= best.peak
        budget = best.peak - 1
    with pytest.raises(OverBudgetError) as caught:
        solve_checkmate(graph, budget, time_limit=20.0)
    assert budget < caught.value.least <= budget + 1 or caught.value.proven
    least = least_peak(graph, time_limit=20.0)
    assert least.complete
    assert simulate(graph, least.order).peak == least.peak
    assert least.peak == least.bound == budget + 1


@given(graphs(most=4))
@SEARCHED
def test_equals_a_search_at_every_budget(graph: Graph) -> None:
    _assert_best_at_every_budget(graph)


@given(sparse(most=4))
@SEARCHED
def test_equals_a_search_where_nodes_have_several_results(graph: Graph) -> None:
    _assert_best_at_every_budget(graph)


@given(measured())
@SEARCHED
def test_keeps_to_the_byte_where_numbers_are_great(graph: Graph) -> None:
    budget = simulate(graph, graph.plain).peak
    while (order := cheapest_order(graph, budget, staged=True)) is not None:
        best = simulate(graph, order)
        answer = solve_checkmate(graph, best.peak, time_limit=20.0, gap=0.0)
        assert answer.peak <= best.peak
        assert answer.bound <= best.seconds * (1 + 1e-9)
        assert answer.seconds == pytest.approx(best.seconds, rel=1e-4)
        budget = best.peak - 1


@given(graphs(most=3), st.floats(0.4, 1.0))
@SEARCHED
def test_stages_lose_nothing_on_small_graphs(graph: Graph, share: float) -> None:
    budget = int(simulate(graph, graph.plain).peak * share)
    free = cheapest_order(graph, budget, staged=False)
    if free is None:
        with pytest.raises(OverBudgetError):
            solve_checkmate(graph, budget, time_limit=20.0)
    else:
        answer = solve_checkmate(graph, budget, time_limit=20.0, gap=0.0)
        assert answer.seconds == simulate(graph, free).seconds


def test_stages_lose_where_backward_nodes_change_places() -> None:
    """The bound holds for staged orders only: b1 before b2 computes nothing twice."""
    graph = differentiated(
        [[], [], [0], [0, 1, 2]],
        sizes=[8, 2, 6, 1],
        seconds=[7.0, 9.0, 3.0, 2.0],
        workspaces=[0, 0, 3, 0],
    )
    other = simulate(graph, (0, 2, 1, 3, 4, 5, 7, 6, 8))
    answer = solve_checkmate(graph, 25, gap=0.0)
    assert other.peak <= 25
    assert other.seconds == graph.seconds
    assert answer.seconds == answer.bound > other.seconds


# --- figures of others ----------------------------------------------------------------------


@pytest.mark.parametrize(("count", "seconds"), [(4, 11.0), (8, 21.0), (12, 30.0)])
def test_unit_linear_nets(count: int, seconds: float) -> None:
    graph = linear_net(count)
    answer = solve_checkmate(graph, int(0.6 * (count + 3)), time_limit=60.0)
    assert answer.complete
    assert answer.seconds == seconds
    assert answer.bound == pytest.approx(seconds, rel=1e-3)


def test_a_budget_of_the_plain_peak_computes_nothing_twice() -> None:
    for graph in (linear_net(8), chain(6)):
        answer = solve_checkmate(graph, simulate(graph, graph.plain).peak)
        assert answer.order == graph.plain
        assert answer.seconds == answer.bound == graph.seconds
        assert answer.gap == 0.0
        assert answer.complete


# --- by hand --------------------------------------------------------------------------------


def test_a_node_of_the_forward_may_wait_until_backward() -> None:
    """It is not computed twice then: only backward reads it."""
    nodes = (
        Node("f", 1.0, (), (0,)),
        Node("side", 1.0, (), (1,)),
        Node("g", 1.0, (0,), (2,), 20),
        Node("loss", 0.0, (2,), (3,)),
        Node("b", 1.0, (1, 3), (4,)),
    )
    values = tuple(Value(f"v{i}", 10) for i in range(5))
    graph = Graph(nodes, values, 3, frozenset(), frozenset({4}))
    assert simulate(graph, graph.plain).peak == 50
    answer = solve_checkmate(graph, 40)
    assert answer.order.index(1) > answer.order.index(2)
    assert answer.seconds == graph.seconds


def test_to_wait_is_free_where_to_run_again_is_not() -> None:
    """Of x and y one must be away while g runs: y, for x was read before and costs again."""
    nodes = (
        Node("x", 1.0, (), (0,)),
        Node("h", 1.0, (0,), (2,)),
        Node("y", 2.0, (), (1,)),
        Node("g", 1.0, (2,), (3,), 20),
        Node("loss", 0.0, (3,), (4,)),
        Node("b", 1.0, (0, 1, 4), (5,)),
    )
    values = tuple(Value(f"v{i}", 10) for i in range(6))
    graph = Graph(nodes, values, 4, frozenset(), frozenset({5}))
    assert simulate(graph, graph.plain).peak == 60
    answer = solve_checkmate(graph, 50)
    assert answer.seconds == answer.bound == graph.seconds
    assert answer.order.count(0) == 1


def test_what_makes_a_value_runs_again_before_it_where_only_that_reads_it() -> None:
    """While h runs neither x1 nor the great x0 has room: both are made twice."""
    nodes = (
        Node("f0", 1.0, (), (0,)),
        Node("f1", 1.0, (0,), (1,)),
        Node("g", 1.0, (1,), (2,)),
        Node("h", 1.0, (2,), (3,), 40),
        Node("loss", 0.0, (3,), (4,)),
        Node("b", 1.0, (1, 4), (5,)),
    )
    sizes = (30, 10, 1, 5, 5, 1)
    values = tuple(Value(f"v{i}", size) for i, size in enumerate(sizes))
    graph = Graph(nodes, values, 4, frozenset(), frozenset({5}))
    assert simulate(graph, graph.plain).peak == 56
    answer = solve_checkmate(graph, 50)
    assert answer.order[:4] == (0, 1, 2, 3)
    assert answer.order.count(0) == answer.order.count(1) == 2
    assert answer.seconds == answer.bound == graph.seconds + 2


def test_what_is_random_may_go_where_it_could_only_serve_to_compute_again() -> None:
    """While g runs only w, which backward reads, is kept: not v, which w is made of."""
    nodes = (
        Node("e", 1.0, (), (0,)),
        Node("random", 1.0, (), (1,), 0, False),
        Node("f", 5.0, (0, 1), (2,)),
        Node("g", 1.0, (2,), (3,), 20),
        Node("loss", 0.0, (3,), (4,)),
        Node("b", 1.0, (0, 2, 4), (5,)),
    )
    values = tuple(Value(f"v{i}", 10) for i in range(6))
    graph = Graph(nodes, values, 4, frozenset(), frozenset({5}))
    assert simulate(graph, graph.plain).peak == 50
    answer = solve_checkmate(graph, 40)
    assert answer.order.count(0) == 2
    assert answer.seconds == answer.bound == graph.seconds + 1


def test_bounds_are_rounded_to_what_can_be() -> None:
    assert _Unit(0.5, whole=True).bound(6.2) == 3.5
    assert _Unit(0.5, whole=True).bound(7.0 + 1e-9) == 3.5
    assert 3.0999 < _Unit(0.5, whole=False).bound(6.2) < 3.1
    assert _Unit(0.5, whole=True).bound(-math.inf) == -math.inf


def test_a_result_of_the_forward_may_be_made_again_at_the_end() -> None:
    nodes = (
        Node("f", 1.0, (), (0,)),
        Node("g", 2.0, (0,), (1,)),
        Node("loss", 0.0, (1,), (2,)),
        Node("b", 1.0, (2,), (3,), 20),
    )
    values = tuple(Value(f"v{i}", 10) for i in range(4))
    graph = Graph(nodes, values, 2, frozenset(), frozenset({0, 3}))
    assert simulate(graph, graph.plain).peak == 50
    with pytest.raises(OverBudgetError):
        solve_checkmate(graph, 49)  # nothing runs after the last node
    last = Graph((*nodes, Node("end", 1.0, (3,), ())), values, 2, frozenset(), graph.results)
    assert solve_checkmate(last, 40).order == (0, 1, 2, 3, 0, 4)


def test_waste_is_left_out() -> None:
    graph = chain(3)
    assert without_waste(graph, (0, 1, 1, 2, 2, 3, 1, 4, 5, 6)) == (0, 1, 2, 3, 1, 4, 5, 6)
    assert without_waste(graph, graph.plain) == graph.plain


# --- what cannot be -------------------------------------------------------------------------


def test_a_node_that_does_not_fit_alone() -> None:
    graph = differentiated([[], [0]], sizes=[4, 8], seconds=[1.0, 1.0], workspaces=[0, 100])
    with pytest.raises(
        OverBudgetError, match="b1 alone takes 128 bytes, 127 are allowed"
    ) as caught:
        solve_checkmate(graph, 127)
    assert caught.value.proven
    assert (caught.value.least, caught.value.node) == (128, 3)


def test_a_budget_that_no_order_meets() -> None:
    graph = differentiated(
        [[i - 1] if i else [] for i in range(6)],
        sizes=[1] * 6,
        seconds=[1.0] * 6,
        random=frozenset(range(1, 6)),
    )
    least = least_peak(graph)
    assert least.complete
    assert least.peak == simulate(graph, graph.plain).peak - 1
    with pytest.raises(OverBudgetError, match=f"least that was reached is {least.peak}") as caught:
        solve_checkmate(graph, least.peak - 1)
    assert caught.value.least == least.peak
    assert caught.value.order is not None
    assert simulate(graph, caught.value.order).peak == least.peak
    assert solve_checkmate(graph, least.peak).peak == least.peak


def test_when_time_is_up() -> None:
    graph = chain(40)
    budget = simulate(graph, graph.plain).peak // 3
    with pytest.raises(OverBudgetError, match="found in time") as caught:
        solve_checkmate(graph, budget, time_limit=0.0)
    assert not caught.value.proven
    assert caught.value.order == graph.plain
    least = least_peak(graph, time_limit=0.0)
    assert not least.complete
    assert least.bound <= least.peak == simulate(graph, least.order).peak
    assert math.isfinite(least.bound)
