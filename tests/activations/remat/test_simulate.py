"""The simulator against a list of live copies, and what it refuses."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.activations.remat.graph import Graph, Node, Value
from shoestring.activations.remat.simulate import InvalidOrderError, last_uses, simulate
from tests.oracles import remat_orders as oracle
from tests.oracles.remat_graphs import chain, differentiated, graphs


def wandering(graph: Graph, seed: int) -> tuple[int, ...]:
    """A valid order at random: any node that may run, forward nodes again and again."""
    draw = random.Random(seed)
    order: list[int] = []
    there = set(graph.held)
    once = {i for i, node in enumerate(graph.nodes[: graph.border]) if not node.repeatable}
    while len(set(order)) < len(graph.nodes):
        can = [
            index
            for index, node in enumerate(graph.nodes)
            if set(node.reads) <= there
            and (index not in order or (index < graph.border and node.repeatable))
            and (index <= graph.border or graph.border in order)
            and (node.repeatable or index > graph.border or graph.border not in order)
            and (index != graph.border or once.issubset(order))
        ]
        order.append(draw.choice(can))
        there.update(graph.nodes[order[-1]].makes)
    return tuple(order)


def twofold() -> Graph:
    """A forward node of two results, of which the backward reads the second one."""
    nodes = (
        Node("f0", 1.0, (6,), (0, 1), workspace=5),
        Node("f1", 1.0, (0,), (2,)),
        Node("loss", 0.0, (2,), (3,)),
        Node("b1", 1.0, (0, 3), (4,)),
        Node("b0", 1.0, (1, 4), (5,)),
    )
    sizes = (10, 20, 3, 1, 2, 4, 100)
    values = tuple(Value(f"v{i}", size) for i, size in enumerate(sizes))
    graph = Graph(nodes, values, 2, frozenset({6}), frozenset({5}))
    graph.check()
    return graph


# --- against the oracle ---------------------------------------------------------------------


@given(graphs(), st.integers(0, 2**32))
def test_equals_the_list_of_live_copies(graph: Graph, seed: int) -> None:
    for order in (graph.plain, wandering(graph, seed)):
        result = simulate(graph, order)
        during = oracle.bytes_during(graph, order)
        assert list(result.bytes_during) == during
        assert list(result.bytes_after) == oracle.bytes_after(graph, order)
        assert result.peak == max(during)
        assert result.at == during.index(max(during))
        assert result.kept == oracle.kept(graph, order)
        assert result.seconds == sum(graph.nodes[index].seconds for index in order)


@given(graphs(), st.integers(0, 2**32))
def test_a_value_ends_once_for_each_time_it_is_made_but_results_stay(
    graph: Graph, seed: int
) -> None:
    order = wandering(graph, seed)
    ends = [value for values in last_uses(graph, order) for value in values]
    for value in set(range(len(graph.values))) - graph.held:
        made = order.count(graph.maker[value])
        assert ends.count(value) == made - (value in graph.results)
    assert not graph.held.intersection(ends)


@given(graphs())
def test_nothing_but_results_is_left(graph: Graph) -> None:
    assert simulate(graph, graph.plain).bytes_after[-1] == graph.sizes(tuple(graph.results))


# --- by hand --------------------------------------------------------------------------------


def test_a_chain_by_hand() -> None:
    """Forward holds 1, 2, 3; backward holds all that is saved and two gradients."""
    plain = simulate(chain(3), chain(3).plain)
    assert plain.bytes_during == (1, 2, 3, 4, 5, 4, 3)
    assert plain.bytes_after == (1, 2, 3, 4, 3, 2, 1)
    assert (plain.peak, plain.at, plain.seconds) == (5, 4, 9.0)
    assert plain.kept == {0, 1, 2}
    again = simulate(chain(3), (0, 1, 2, 3, 1, 4, 5, 6))
    assert again.kept == {0, 2}
    assert again.bytes_during == (1, 2, 3, 3, 4, 5, 4, 3)
    assert again.seconds == 10.0


def test_a_node_of_two_results_runs_again() -> None:
    """Both results are made again; the one that nobody reads goes as soon as it is made."""
    graph = twofold()
    plain = simulate(graph, graph.plain)
    assert plain.bytes_during == (35, 33, 34, 33, 26)
    assert plain.kept == {0, 1, 2}
    again = simulate(graph, (0, 1, 2, 3, 0, 4))
    assert again.kept == {0, 2}
    assert again.bytes_during == (35, 13, 14, 13, 37, 26)
    assert again.bytes_after == (10, 13, 11, 2, 22, 4)
    both = simulate(graph, (0, 1, 2, 0, 3, 4))
    assert both.kept == {2}
    assert both.bytes_during == (35, 13, 4, 36, 33, 26)


def test_a_copy_that_is_made_again_is_not_kept_until_then() -> None:
    """The second copy of value 0 replaces the first one, which ended at its last read."""
    graph = twofold()
    result = simulate(graph, (0, 0, 1, 2, 3, 4))
    assert result.bytes_during == (35, 35, 33, 34, 33, 26)
    assert result.bytes_after[0] == 0


def test_results_stay_and_are_made_again_where_a_forward_node_makes_them() -> None:
    nodes = (
        Node("f", 1.0, (), (0,)),
        Node("g", 1.0, (0,), (1,)),
        Node("loss", 0.0, (1,), (2,)),
        Node("b", 1.0, (2,), (3,)),
    )
    values = tuple(Value(f"v{i}", 1 << i) for i in range(4))
    graph = Graph(nodes, values, 2, frozenset(), frozenset({0, 3}))
    plain = simulate(graph, graph.plain)
    assert plain.bytes_during == (1, 3, 7, 13)
    assert plain.bytes_after == (1, 3, 5, 9)
    again = simulate(graph, (0, 1, 2, 3, 0))
    assert again.bytes_during == (1, 3, 6, 12, 9)
    assert again.kept == {1}


def test_held_values_cost_nothing() -> None:
    graph = twofold()
    heavier = Graph(
        graph.nodes,
        (*graph.values[:6], Value("w", 10**9)),
        graph.border,
        graph.held,
        graph.results,
    )
    assert simulate(heavier, heavier.plain) == simulate(graph, graph.plain)


def test_workspace_counts_only_while_its_node_runs() -> None:
    graph = differentiated([[], [0]], sizes=[1, 1], seconds=[1.0, 1.0], workspaces=[0, 7])
    assert simulate(graph, graph.plain).bytes_during == (1, 9, 3, 11, 3)
    assert simulate(graph, graph.plain).bytes_after == (1, 2, 3, 2, 1)


def test_a_forward_node_may_wait_until_after_the_border() -> None:
    nodes = (
        Node("f", 1.0, (), (0,)),
        Node("side", 1.0, (), (1,)),
        Node("loss", 0.0, (0,), (2,)),
        Node("b", 1.0, (1, 2), (3,)),
    )
    values = tuple(Value(f"v{i}", 1 << i) for i in range(4))
    graph = Graph(nodes, values, 2, frozenset(), frozenset({3}))
    assert simulate(graph, graph.plain).bytes_during == (1, 3, 7, 14)
    waited = simulate(graph, (0, 2, 1, 3))
    assert waited.bytes_during == (1, 5, 6, 14)
    assert waited.kept == {0}


def test_what_draws_random_numbers_runs_before_the_border() -> None:
    graph = differentiated([[], []], sizes=[1, 1], seconds=[1.0, 1.0], random=frozenset({0}))
    simulate(graph, (1, 0, 2, 3, 4))
    with pytest.raises(InvalidOrderError, match="f0 at 2 must run before the border"):
        simulate(graph, (1, 2, 0, 3, 4))


# --- what cannot run ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ((1, 0, 2, 3, 4), "f1 at 0 reads v0, which is not there"),
        ((0, 1, 2, 4, 3), "b0 at 3 reads v4, which is not there"),
        ((0, 1, 2, 2, 3, 4), "loss at 3 may not be computed again"),
        ((0, 1, 2, 3, 3, 4), "b1 at 4 may not be computed again"),
        ((0, 1, 2, 3), "b0 is never computed"),
        ((), "f0 is never computed"),
    ],
)
def test_orders_that_cannot_run(order: tuple[int, ...], message: str) -> None:
    with pytest.raises(InvalidOrderError, match=message):
        simulate(twofold(), order)


def test_what_draws_random_numbers_runs_once() -> None:
    graph = differentiated([[], [0]], sizes=[1, 1], seconds=[1.0, 1.0], random=frozenset({0}))
    simulate(graph, (0, 1, 2, 1, 3, 4))
    with pytest.raises(InvalidOrderError, match="f0 at 3 may not be computed again"):
        simulate(graph, (0, 1, 2, 0, 3, 4))


def test_backward_runs_after_the_border() -> None:
    nodes = (
        Node("f", 1.0, (), (0,)),
        Node("loss", 0.0, (0,), (1,)),
        Node("b", 1.0, (0,), (2,)),
    )
    values = tuple(Value(f"v{i}", 1) for i in range(3))
    graph = Graph(nodes, values, 1, frozenset(), frozenset({2}))
    simulate(graph, (0, 1, 2))
    with pytest.raises(InvalidOrderError, match="b at 1 runs before the border"):
        simulate(graph, (0, 2, 1))
