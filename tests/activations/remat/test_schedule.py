"""What a schedule says of itself: the table, the JSON, the stretches of the forward."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.activations.remat.answer import Answer
from shoestring.activations.remat.captured import SCHEMA, Schedule
from shoestring.activations.remat.graph import Graph
from shoestring.activations.remat.simulate import simulate
from shoestring.activations.remat.solvers.closure_order import closure_order
from shoestring.activations.remat.solvers.find import find_order
from shoestring.activations.remat.timeline import places, timeline
from shoestring.core.documents import parse_document
from tests.oracles.remat_graphs import chain, graphs


def repeating(graph: Graph, again: frozenset[int]) -> Schedule:
    """Return the schedule that computes some nodes again."""
    order = closure_order(graph, again)
    run = simulate(graph, order)
    answer = Answer(order, run.peak, run.seconds, graph.seconds, "closure", complete=True)
    return Schedule(graph, answer, run.peak)


def kinds(graph: Graph) -> Graph:
    """Return a graph whose forward nodes are of two kinds, by turns."""
    nodes = [
        node._replace(kind=("mm", "gelu")[i % 2] if i < graph.border else "back")
        for i, node in enumerate(graph.nodes)
    ]
    return Graph(tuple(nodes), graph.values, graph.border, graph.held, graph.results)


def test_the_table_says_what_is_computed_again_where() -> None:
    schedule = repeating(kinds(chain(8)), frozenset({0, 1, 2}))
    lines = schedule.table().splitlines()
    rows = {line.split("  ")[0]: line.split() for line in lines}
    assert rows["mm"][1:] == ["2", "4", "8.3%"]
    assert rows["gelu"][1:] == ["1", "4", "4.2%"]
    assert f"{schedule.overhead:.1%}" in schedule.table()
    bars = next(line for line in lines if line.startswith("along the forward")).split()[-1]
    assert bars == "█" * 15 + "·" * 25


def test_what_takes_next_to_nothing_shares_a_line() -> None:
    plain = chain(6)
    nodes = [
        node._replace(kind=f"k{i}", seconds=node.seconds if i < 2 else 1e-6)
        for i, node in enumerate(plain.nodes)
    ]
    graph = Graph(tuple(nodes), plain.values, plain.border, plain.held, plain.results)
    table = repeating(graph, frozenset(range(5))).table()
    assert "k0" in table
    assert "k3" not in table
    assert "3 other kinds" in table


def test_the_plain_step_has_nothing_to_tell() -> None:
    graph = chain(4)
    answer = find_order(graph, simulate(graph, graph.plain).peak)
    table = Schedule(graph, answer, answer.peak).table()
    assert "0.0% of the step" in table
    assert "along the forward" not in table


@given(graphs(), st.data())
def test_the_timeline_is_the_simulation_over_time(graph: Graph, data: st.DataObject) -> None:
    free = sorted(graph.repeatable)
    schedule = repeating(graph, frozenset(k for k in free if data.draw(st.booleans())))
    line = timeline(graph, schedule.order)
    assert line.bytes == schedule.run.bytes_during
    assert line.starts[list(schedule.order).index(graph.border)] == 0
    lasts = [end - start for start, end in zip(line.starts, line.ends, strict=True)]
    assert lasts == pytest.approx([graph.nodes[k].seconds for k in schedule.order])
    assert line.ends[-1] - line.starts[0] == pytest.approx(schedule.answer.seconds)
    assert sum(line.again) == len(schedule.order) - len(graph.nodes)
    repeated = sum(t for t, again in zip(lasts, line.again, strict=True) if again)
    assert repeated == pytest.approx(sum(row.seconds for row in schedule.repeated()))


@given(graphs(), st.integers(1, 7), st.data())
def test_the_stretches_hold_all_that_is_computed_again(
    graph: Graph, count: int, data: st.DataObject
) -> None:
    free = sorted(graph.repeatable)
    schedule = repeating(graph, frozenset(k for k in free if data.draw(st.booleans())))
    found = places(graph, schedule.order, count)
    whole = sum(node.seconds for node in graph.nodes[: graph.border])
    assert [place.seconds for place in found] == pytest.approx([whole / count] * count)
    again = sum(row.seconds for row in schedule.repeated())
    assert sum(place.again for place in found) == pytest.approx(again)


def test_the_json_is_a_document_with_both_steps() -> None:
    schedule = repeating(kinds(chain(8)), frozenset({0, 1, 2}))
    document = parse_document(schedule.to_json(), SCHEMA)
    assert document["peak"] == schedule.peak
    assert document["seconds"] == schedule.answer.seconds
    assert document["kinds"][0] == {"kind": "mm", "times": 2, "forward": 4, "seconds": 2.0}
    assert sum(place["again"] for place in document["places"]) == pytest.approx(3.0)
    steps = document["timeline"]
    assert max(steps["plain"]["bytes"]) == document["plain_peak"]
    assert max(steps["scheduled"]["bytes"]) == document["peak"]
    assert sum(steps["scheduled"]["again"]) == 3


def test_a_notebook_shows_the_same_figures() -> None:
    schedule = repeating(kinds(chain(8)), frozenset({0, 1, 2}))
    shown = schedule._repr_html_()
    for words in ("8.3%", "mm", "█", "style="):
        assert words in shown
