"""Orders that go through a chain of blocks: valid, within the budget, as fast as promised."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.activations.remat.answer import OverBudgetError
from shoestring.activations.remat.graph import Graph, Node, Value
from shoestring.activations.remat.simulate import simulate
from shoestring.activations.remat.solvers.blocks import NotAChainError
from shoestring.activations.remat.solvers.chain import Chain, solve_chain
from shoestring.activations.remat.solvers.closure import hull
from shoestring.activations.remat.solvers.rotor import Table
from tests.activations.remat.test_blocks import llama
from tests.oracles.remat_graphs import chain
from tests.oracles.remat_orders import cheapest_order
from tests.oracles.rotor import block_graphs, differentiated_in_place


def by_price(graph: Graph) -> Iterator[frozenset[int]]:
    """For each price of a byte, the nodes whose results cost less to make than to keep."""
    can = sorted(graph.repeatable)
    price = {
        node: graph.nodes[node].seconds / max(graph.sizes(graph.nodes[node].makes), 1)
        for node in can
    }
    for limit in sorted(set(price.values())):
        yield frozenset(node for node in can if price[node] <= limit)


def every_set(graph: Graph) -> Iterator[frozenset[int]]:
    can = sorted(graph.repeatable)
    for count in range(len(can) + 1):
        yield from map(frozenset, itertools.combinations(can, count))


def by_hull(graph: Graph) -> Iterator[frozenset[int]]:
    for point in hull(graph):
        yield point.recomputed


def made(graph: Graph) -> Chain | None:
    try:
        return Chain(graph, by_price)
    except NotAChainError:
        return None


# --- exact ----------------------------------------------------------------------------------


@settings(deadline=None, max_examples=200)
@given(block_graphs(blocks=4), st.floats(0.3, 1.1))
def test_orders_are_valid_and_cost_what_the_table_says(graph: Graph, share: float) -> None:
    if (built := made(graph)) is None:
        return
    budget = int(share * simulate(graph, graph.plain).peak)
    for schedule in (Table(built.stages, budget).solve(budget), Table(built.stages, 9999).least()):
        if schedule is None:
            continue
        answer = built.answer(schedule)
        run = simulate(graph, answer.order)
        assert (answer.peak, answer.seconds) == (run.peak, run.seconds)
        assert run.seconds == schedule.seconds
        assert run.peak <= schedule.peak


@settings(deadline=None, max_examples=200)
@given(block_graphs(blocks=4, masked=True), st.floats(0.3, 1.1))
def test_what_blocks_share_is_made_once(graph: Graph, share: float) -> None:
    if (built := made(graph)) is None:
        return
    budget = int(share * simulate(graph, graph.plain).peak)
    shared = {block.values[value] for block in built.blocks for value in block.shared}
    schedule = Table(built.stages, budget).solve(budget)
    if schedule is not None:
        answer = built.answer(schedule)
        assert answer.peak <= schedule.peak <= budget
        assert answer.seconds == schedule.seconds
        for value in shared:
            assert answer.order.count(graph.maker[value]) == 1


@settings(deadline=None)
@given(block_graphs(blocks=4, drawn=False), st.sampled_from([1, 3, 9]), st.floats(0.4, 1.0))
def test_rounding_stays_within_the_budget(graph: Graph, slots: int, share: float) -> None:
    budget = int(share * simulate(graph, graph.plain).peak)
    try:
        answer = solve_chain(graph, budget, by_price, slots=slots)
    except NotAChainError:
        return
    except OverBudgetError as error:
        assert error.order is not None
        assert simulate(graph, error.order).peak == error.least
        return
    assert answer.peak <= budget


def test_an_input_stays_where_the_block_before_reads_it_too() -> None:
    """f2's backward ends with a large workspace; x1 is there for f1's backward, or it is not."""
    for clinging, peak in ((True, 640), (False, 540)):
        nodes = (
            Node("f0", 1.0, (), (0,)),
            Node("f1", 1.0, (0,), (1,)),
            Node("f2", 1.0, (1,), (2,)),
            Node("loss", 0.0, (2,), (3,)),
            Node("b2a", 1.0, (3, 1), (4,)),
            Node("b2b", 1.0, (4, 2), (5,), workspace=500),
            Node("b1", 1.0, (5, 0, 1) if clinging else (5, 0), (6,)),
        )
        sizes = (10, 100, 10, 10, 10, 10, 10)
        values = tuple(Value(f"v{n}", size) for n, size in enumerate(sizes))
        graph = Graph(nodes, values, 3, frozenset(), frozenset({6}))
        built = Chain(graph, every_set)
        assert built.blocks[2].clings == clinging
        schedule = Table(built.stages, 999, slots=999).solve(999)
        assert schedule is not None
        assert built.answer(schedule).peak == schedule.peak == peak


# --- good -----------------------------------------------------------------------------------


def drawn_chain(draw: random.Random, count: int) -> Graph:
    """One operation a block, each with figures of its own."""
    parents = [[node - 1] if node else [] for node in range(count)]
    sizes = [draw.randint(1, 9) for _ in parents]
    seconds = [float(draw.randint(1, 9)) for _ in parents]
    workspaces = [draw.choice([0, 0, 3]) for _ in parents]
    return differentiated_in_place(parents, sizes, seconds, workspaces, set())


def drops_what_crossed_the_border(graph: Graph, order: tuple[int, ...]) -> bool:
    """Whether something is kept at first and yet made again: no persistent schedule does that."""
    after = order[order.index(graph.border) :]
    kept = simulate(graph, order).kept
    return any(not kept.isdisjoint(graph.nodes[n].makes) for n in after if n < graph.border)


@pytest.mark.parametrize(("count", "draws", "enough"), [(3, 300, 20), (4, 150, 20), (5, 12, 1)])
def test_tiny_chains_come_near_the_best_of_all_orders(count: int, draws: int, enough: int) -> None:
    draw, compared, near = random.Random(count), 0, 0
    for _ in range(draws):
        graph = drawn_chain(draw, count)
        budget = int(draw.uniform(0.6, 1) * simulate(graph, graph.plain).peak)
        best = cheapest_order(graph, budget, staged=False)
        if best is None:
            with pytest.raises(OverBudgetError):
                solve_chain(graph, budget, every_set)
            continue
        least = simulate(graph, best).seconds
        found = solve_chain(graph, budget, every_set).seconds
        assert found >= least
        assert found == least or drops_what_crossed_the_border(graph, best)
        if least > simulate(graph, graph.plain).seconds:
            compared += 1
            near += found <= 1.03 * least
    assert compared >= enough
    assert near >= 0.9 * compared


def test_a_unit_chain_needs_few_bytes() -> None:
    graph = chain(32)
    plain = simulate(graph, graph.plain)
    answer = solve_chain(graph, plain.peak // 3, by_hull)
    assert answer.peak <= plain.peak // 3
    assert answer.seconds <= plain.seconds + 32


@pytest.mark.parametrize("layers", [4, 12])
def test_layers_are_worked_out_once(layers: int) -> None:
    graph = llama(layers)
    built = Chain(graph, by_hull)
    assert built.groups <= 10
    assert len(built.stages) >= 2 * layers
    plain = simulate(graph, graph.plain)
    slower = plain.seconds
    for share in (0.8, 0.6, 0.5, 0.4):
        answer = solve_chain(graph, int(share * plain.peak), by_hull)
        assert answer.peak <= share * plain.peak
        assert answer.seconds >= slower
        slower = answer.seconds
    assert slower <= 4 / 3 * plain.seconds


def test_a_budget_that_holds_the_plain_step_changes_nothing() -> None:
    graph = llama(3)
    plain = simulate(graph, graph.plain)
    assert solve_chain(graph, plain.peak, by_hull).order == graph.plain


def test_too_small_a_budget_is_refused_with_the_least() -> None:
    graph = llama(3)
    with pytest.raises(OverBudgetError, match="10 are allowed") as error:
        solve_chain(graph, 10, by_hull)
    assert error.value.order is not None
    assert simulate(graph, error.value.order).peak == error.value.least
    assert solve_chain(graph, error.value.least, by_hull).peak <= error.value.least
