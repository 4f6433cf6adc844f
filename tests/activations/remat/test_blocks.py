"""Graphs are cut where they are chains, and refused where they are not."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.activations.remat.graph import Graph, Node, Value
from shoestring.activations.remat.simulate import simulate
from shoestring.activations.remat.solvers.blocks import Block, NotAChainError, cut
from tests.oracles.remat_graphs import chain, differentiated, graphs
from tests.oracles.rotor import block_graphs, differentiated_in_place


def llama(layers: int, *, angle: int = 1) -> Graph:
    """Layers with two skips, all of which read an angle; an embedding and a head."""
    parents: list[list[int]] = [[], [0], []]  # positions, angle, embedding
    sizes = [1, angle, 100]
    stream = 2
    for _ in range(layers):
        at = len(parents)
        parents += [[stream], [at, 1], [at + 1, 1], [at + 2], [at + 3, stream]]
        parents += [[at + 4], [at + 5], [at + 6], [at + 7, at + 4]]
        sizes += [100, 300, 100, 100, 100, 100, 400, 400, 100]
        stream = at + 8
    parents += [[stream], [stream + 1]]
    sizes += [100, 900]
    seconds = [float(1 + size // 100) for size in sizes]
    none = [0] * len(sizes)
    constant = frozenset({0, 1})
    return differentiated_in_place(parents, sizes, seconds, none, set(), constant=constant)


def unet() -> Graph:
    """Each node of the way down is read on the way up."""
    depth = 6
    parents = [[node - 1] if node else [] for node in range(depth)]
    parents += [[node - 1, 2 * depth - 1 - node] for node in range(depth, 2 * depth)]
    return differentiated(parents, sizes=[100] * 12, seconds=[1.0] * 12)


def shuffled_backward(graph: Graph, seed: int) -> Graph:
    """The same graph with its backward in another valid order."""
    draw = random.Random(seed)
    done, order = set(range(graph.border + 1)), list(range(graph.border + 1))
    while len(order) < len(graph.nodes):
        can = [
            node
            for node in range(graph.border + 1, len(graph.nodes))
            if node not in done
            and all(graph.maker[v] in done | {-1} for v in graph.nodes[node].reads)
        ]
        order.append(draw.choice(can))
        done.add(order[-1])
    nodes = tuple(graph.nodes[node] for node in order)
    return Graph(nodes, graph.values, graph.border, graph.held, graph.results)


def check(graph: Graph, blocks: list[Block]) -> None:
    """Each node is in one block, and running block after block is a valid order."""
    forward = [node for block in blocks for node in block.nodes[: block.graph.border]]
    assert forward == list(range(graph.border))
    backward = [
        node for block in reversed(blocks) for node in block.nodes[block.graph.border + 1 :]
    ]
    simulate(graph, [*forward, graph.border, *backward])
    assert len(forward) + len(backward) + 1 == len(graph.nodes)
    for block in blocks:
        block.graph.check()
        whole = [graph.values[value].size for value in block.values]
        held = block.graph.held - block.inputs
        assert [v.size for v in block.graph.values] == [
            0 if local in held else size for local, size in enumerate(whole)
        ]
    for block, after in itertools.pairwise(blocks):
        outer = [block.values[value] for value in block.outputs]
        assert outer == [after.values[value] for value in after.inputs]
        assert {block.values[v] for v in block.arrives} == {after.values[v] for v in after.leaves}


# --- what is cut ----------------------------------------------------------------------------


def test_a_chain_is_cut_everywhere() -> None:
    blocks = cut(chain(8))
    check(chain(8), blocks)
    assert [block.graph.border for block in blocks] == [1] * 8 + [0]
    assert len({block.group for block in blocks}) <= 5


@pytest.mark.parametrize("layers", [2, 5, 20, 70])
def test_what_all_layers_read_is_shared(layers: int) -> None:
    graph = llama(layers)
    blocks = cut(graph)
    check(graph, blocks)
    shared = [block.values[value] for block in blocks for value in block.shared]
    assert shared == [1]
    assert len(blocks) <= 64
    assert len({block.group for block in blocks}) <= 10
    if layers < 30:
        assert len(blocks) >= 2 * layers


def test_what_all_layers_read_is_not_shared_when_it_is_large() -> None:
    graph = llama(4, angle=100_000)
    check(graph, blocks := cut(graph))
    assert not any(block.shared for block in blocks)
    assert max(block.graph.border for block in blocks) >= 3 * 9


def test_skips_across_the_middle_are_not_cut() -> None:
    check(unet(), blocks := cut(unet()))
    assert max(block.graph.border for block in blocks) >= 10


def test_no_operation_is_no_chain() -> None:
    alone = Graph((Node("loss", 1.0, (), ()),), (), 0, frozenset(), frozenset())
    with pytest.raises(NotAChainError, match="no operation"):
        cut(alone)


def test_the_narrowest_place_is_named() -> None:
    nodes = (Node("f", 1.0, (), (0, 1)), Node("loss", 1.0, (0, 1), ()))
    graph = Graph(nodes, (Value("a", 1), Value("b", 1)), 1, frozenset(), frozenset())
    with pytest.raises(NotAChainError, match=r"before loss, where fewest do, 2 values .*: a, b"):
        cut(graph)


@pytest.mark.parametrize("tied", [True, False])
def test_backward_must_part_where_forward_does(tied: bool) -> None:
    """Backward reads what the first node made, then what the second made; it may have to."""
    nodes = (
        Node("f0", 1.0, (), (0, 1)),
        Node("f1", 1.0, (0,), (2, 6)),
        Node("loss", 0.0, (2, 6), (3,)),
        Node("b0", 1.0, (3, 1), (4,)),
        Node("b1", 1.0, (4 if tied else 3, 2), (5,)),
    )
    values = tuple(Value(f"v{n}", 9) for n in range(7))
    graph = Graph(nodes, values, 2, frozenset(), frozenset({4, 5}))
    if tied:
        with pytest.raises(NotAChainError, match=r"before f1 only v0 goes on .* mixes"):
            cut(graph)
    else:
        check(graph, blocks := cut(graph))
        assert [block.nodes for block in blocks] == [(0, -1, 3), (1, 2, 4)]


def test_equal_layers_are_equal_blocks() -> None:
    blocks = cut(llama(20))
    middle = blocks[5:-4]
    assert len({block.group for block in middle}) == 2
    assert len({(block.graph, block.inputs, block.arrives) for block in middle}) == 2


@settings(deadline=None)
@given(st.integers(0, 99))
def test_backward_in_another_order_is_put_right(seed: int) -> None:
    graph = shuffled_backward(llama(3), seed)
    check(graph, blocks := cut(graph))
    assert len(blocks) >= 6


@settings(deadline=None)
@given(block_graphs(blocks=4))
def test_joined_blocks_are_cut(graph: Graph) -> None:
    try:
        blocks = cut(graph)
    except NotAChainError as error:
        assert "backward mixes" in str(error)
    else:
        check(graph, blocks)


@settings(deadline=None)
@given(graphs(most=9))
def test_any_graph_is_cut_or_refused(graph: Graph) -> None:
    try:
        check(graph, cut(graph))
    except NotAChainError as error:
        assert "the graph is no chain" in str(error)


@settings(deadline=None)
@given(block_graphs(blocks=8, inside=2), st.integers(2, 5))
def test_no_more_blocks_than_allowed(graph: Graph, most: int) -> None:
    try:
        blocks = cut(graph, most=most)
    except NotAChainError:
        return
    check(graph, blocks)
    assert 2 <= len(blocks) <= most
