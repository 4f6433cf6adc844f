"""The dynamic order: within its budget, complete, and linear on chains."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from shoestring.activations.remat.answer import OverBudgetError
from shoestring.activations.remat.graph import Graph, Node, Value
from shoestring.activations.remat.simulate import simulate
from shoestring.activations.remat.solvers.dtr import solve_dtr
from tests.oracles.remat_graphs import chain, differentiated, graphs, sparse
from tests.oracles.remat_orders import SlowDtr, cheapest_order

SEARCHED = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


# --- against the oracle ---------------------------------------------------------------------


@given(st.one_of(graphs(), sparse(least=5, most=10)), st.floats(0.3, 0.9))
@settings(SEARCHED, max_examples=500)
def test_equals_the_recursion_and_stays_within_the_budget(graph: Graph, share: float) -> None:
    budget = int(simulate(graph, graph.plain).peak * share)
    slow = SlowDtr(graph, budget).run()
    if slow is None:
        with pytest.raises(OverBudgetError):
            solve_dtr(graph, budget)
        return
    answer = solve_dtr(graph, budget)
    assert answer.order == slow
    result = simulate(graph, answer.order)
    assert (answer.peak, answer.seconds) == (result.peak, result.seconds)
    assert answer.peak <= budget
    assert answer.bound == graph.seconds <= answer.seconds
    assert (answer.solver, answer.complete) == ("dtr", True)


@given(graphs(most=3), st.floats(0.4, 1.0))
@SEARCHED
def test_is_never_better_than_the_best_order(graph: Graph, share: float) -> None:
    budget = int(simulate(graph, graph.plain).peak * share)
    best = cheapest_order(graph, budget, staged=False)
    if best is None:
        with pytest.raises(OverBudgetError):
            solve_dtr(graph, budget)
        return
    try:
        answer = solve_dtr(graph, budget)
    except OverBudgetError:
        assume(False)
    assert answer.seconds >= simulate(graph, best).seconds


@given(graphs())
def test_what_fits_runs_as_it_is(graph: Graph) -> None:
    assert solve_dtr(graph, simulate(graph, graph.plain).peak).order == graph.plain


# --- how much is computed -------------------------------------------------------------------


@pytest.mark.parametrize("count", [16, 64, 256])
def test_a_chain_with_the_root_of_its_memory_takes_linear_time(count: int) -> None:
    """2 sqrt(N) bytes of the forward, and the two gradients that backward has at a time."""
    graph = chain(count)
    budget = 2 * math.isqrt(count) + 2
    answer = solve_dtr(graph, budget)
    assert answer.peak <= budget
    assert len(answer.order) <= 4 * count


def skipping(count: int) -> Graph:
    """A chain in which every second node reads also the one four before it."""
    parents = [sorted({i - 1, i - 4 * (i % 2)} & set(range(i))) for i in range(count)]
    sizes = [1 + i % 7 for i in range(count)]
    return differentiated(parents, sizes=sizes, seconds=[1.0 + i % 5 for i in range(count)])


@pytest.mark.parametrize("share", [0.3, 0.4, 0.5, 0.7])
@pytest.mark.parametrize("graph", [chain(40), skipping(40)], ids=["chain", "skipping"])
def test_equals_the_recursion_on_longer_graphs(graph: Graph, share: float) -> None:
    budget = int(simulate(graph, graph.plain).peak * share)
    assert solve_dtr(graph, budget).order == SlowDtr(graph, budget).run()


def test_two_thousand_nodes_fit_a_fifth() -> None:
    graph = skipping(1000)
    budget = simulate(graph, graph.plain).peak // 5
    answer = solve_dtr(graph, budget)
    assert answer.peak <= budget
    assert len(answer.order) > len(graph.nodes)


# --- by hand --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "sizes", "gone", "tail"),
    [
        # the stalest: 2 / (8 * 2) < 2 / (8 * 1)
        ((2.0, 2.0, 2.0), (8, 8, 8), 1, (5, 1, 6, 7)),
        # the cheapest: 1 / (8 * 1) < 9 / (8 * 2)
        ((1.0, 9.0, 9.0), (8, 8, 8), 0, (0, 5, 6, 7)),
        # the greatest: 2 / (32 * 1) < 2 / (8 * 2); it is made of x0, which nobody keeps for it
        ((2.0, 2.0, 2.0), (8, 8, 32), 2, (5, 6, 0, 2, 7)),
    ],
)
def test_what_goes_first(
    seconds: tuple[float, ...], sizes: tuple[int, ...], gone: int, tail: tuple[int, ...]
) -> None:
    """Three values are there, x0 was just read, one byte is wanting."""
    nodes = [Node(f"f{i}", seconds[i], (0,) if i == 2 else (), (i,)) for i in range(3)]
    nodes += [Node("f3", 1.0, (), (3,), 3), Node("loss", 0.0, (3,), (4,))]
    nodes += [Node(f"b{i}", 1.0, (4, i), (5 + i,)) for i in range(3)]
    values = [Value(f"x{i}", size) for i, size in enumerate((*sizes, 1, 1, 1, 1, 1))]
    graph = Graph(tuple(nodes), tuple(values), 4, frozenset(), frozenset({5, 6, 7}))
    answer = solve_dtr(graph, sum(sizes) + 3)
    assert simulate(graph, answer.order).kept == {0, 1, 2, 3} - {gone}
    assert answer.order == (0, 1, 2, 3, 4, *tail)


def test_neighbours_that_are_gone_make_a_value_dear() -> None:
    """Of a chain every second value goes, not a stretch: what is evicted there costs more."""
    graph = chain(8)
    answer = solve_dtr(graph, 6)
    kept = simulate(graph, answer.order).kept
    assert 0 < len(kept) < 8
    assert max(later - value for value, later in itertools.pairwise(sorted(kept))) <= 3


def test_random_values_and_gradients_are_never_evicted() -> None:
    graph = differentiated(
        [[i - 1] if i else [] for i in range(8)],
        sizes=[1] * 8,
        seconds=[1.0] * 8,
        random=frozenset({1, 3, 5}),
    )
    answer = solve_dtr(graph, 8)
    assert simulate(graph, answer.order).kept >= {1, 3, 5}
    assert all(answer.order.count(index) == 1 for index in (1, 3, 5, *range(8, 17)))
    assert len(answer.order) > len(graph.nodes)


def masked(
    parents: list[list[int]],
    *,
    sizes: list[int],
    seconds: list[float],
    reads: list[set[int]],
    masks: dict[int, int],
    random: frozenset[int],
) -> Graph:
    """Return a graph whose backward reads those forward values, and masks of some nodes."""
    plain = differentiated(parents, sizes=sizes, seconds=seconds, random=random)
    nodes, values = list(plain.nodes), list(plain.values)
    for i in range(plain.border):
        back = len(nodes) - 1 - i
        kept = [v for v in nodes[back].reads if v >= plain.border or v in reads[i]]
        if i in masks:
            nodes[i] = nodes[i]._replace(makes=(i, len(values)))
            kept.append(len(values))
            values.append(Value(f"mask{i}", masks[i]))
        nodes[back] = nodes[back]._replace(reads=tuple(kept))
    graph = Graph(tuple(nodes), tuple(values), plain.border, plain.held, plain.results)
    graph.check()
    return graph


def test_what_the_running_node_makes_is_not_evicted_for_it() -> None:
    """x2 is wanted, and 9 bytes of its mask are there: f2 makes them again whatever goes."""
    graph = masked(
        [[], [0], [1], [0, 1, 2], [3]],
        sizes=[8, 4, 8, 3, 3],
        seconds=[2.0, 2.0, 0.0, 3.0, 9.0],
        reads=[{0}, {1}, set(), {2, 3}, set()],
        masks={2: 9},
        random=frozenset({0, 1}),
    )
    assert SlowDtr(graph, 33).run() is None
    with pytest.raises(OverBudgetError):
        solve_dtr(graph, 33)
    for budget in range(34, simulate(graph, graph.plain).peak):
        if (slow := SlowDtr(graph, budget).run()) is not None:
            answer = solve_dtr(graph, budget)
            assert answer.order == slow
            assert answer.peak <= budget


def test_what_nothing_can_need_any_more_makes_no_neighbour_dear() -> None:
    """f3 runs again for its mask alone: x3, which comes with it, is needed by nothing then."""
    graph = masked(
        [[], [0], [0, 1], [1], [1, 2, 3]],
        sizes=[4, 5, 9, 8, 7],
        seconds=[7.0, 0.0, 5.0, 6.0, 7.0],
        reads=[set(), {0}, {2}, set(), set()],
        masks={2: 0, 3: 1, 4: 9},
        random=frozenset(),
    )
    for budget in range(20, simulate(graph, graph.plain).peak):
        if (slow := SlowDtr(graph, budget).run()) is not None:
            assert solve_dtr(graph, budget).order == slow


# --- what cannot be -------------------------------------------------------------------------


def test_a_node_that_does_not_fit_with_what_is_in_use() -> None:
    graph = differentiated([[], [0]], sizes=[4, 8], seconds=[1.0, 1.0], workspaces=[0, 100])
    with pytest.raises(OverBudgetError, match="f1 takes 112 bytes with what is in use") as caught:
        solve_dtr(graph, 111)
    assert (caught.value.least, caught.value.node, caught.value.proven) == (112, 1, False)


def test_it_gives_up_where_computing_again_comes_to_no_end() -> None:
    with pytest.raises(OverBudgetError, match="after 258 operations the step had come to node"):
        solve_dtr(chain(64), 6, most_times=2.0)
    assert len(solve_dtr(chain(64), 6).order) > 258
