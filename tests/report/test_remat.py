"""The pictures of rematerialisation hold the schedule's own figures, and are drawn."""

from __future__ import annotations

import json
import re

import pytest
import vl_convert

from shoestring.activations.remat.captured import Schedule
from shoestring.activations.remat.front import Front
from shoestring.activations.remat.front_search import pareto_front
from shoestring.activations.remat.timeline import timeline
from shoestring.core.units import format_bytes
from shoestring.report.remat import remat_memory_chart, remat_memory_figure, stretches
from shoestring.report.remat_front import Other, remat_front_chart, remat_front_figure
from shoestring.report.remat_page import remat_page, remat_sections
from shoestring.report.remat_places import remat_places_chart, remat_places_figure
from tests.oracles.remat_graphs import chain


@pytest.fixture(scope="module")
def front() -> Front:
    return Front(pareto_front(chain(24), n=12))


@pytest.fixture(scope="module")
def schedule(front: Front) -> Schedule:
    return front.schedules[8]


def data(markup: str, ident: str) -> dict[str, list[dict[str, object]]]:
    """Return the data sets of a figure's plot."""
    found = re.search(rf'<script type="application/json" id="{ident}-spec">(.*?)</script>', markup)
    assert found is not None
    return json.loads(found[1])["datasets"]


def drawn(chart: object) -> str:
    """Return a chart as SVG, drawn by the same Vega-Lite as the page's."""
    svg: str = vl_convert.vegalite_to_svg(chart.to_dict(validate=False))
    return svg


def test_the_curves_are_the_bytes_over_time(schedule: Schedule) -> None:
    sets = data(remat_memory_figure(schedule, prefix="a"), "a-remat-memory")
    for name, order in (("plain", schedule.graph.plain), ("scheduled", schedule.order)):
        step = timeline(schedule.graph, order)
        corners = [(point["x"], point["bytes"]) for point in sets[name]]
        assert corners[:-1] == list(zip(step.starts, step.bytes, strict=True))
        assert corners[-1][0] == step.ends[-1]
    layers = remat_memory_chart(schedule).to_dict(validate=False)["layer"]
    areas = [layer for layer in layers if layer["mark"]["type"] == "area"]
    # Operations that take no time share a place: stacked they would tower over the curve.
    assert [area["encoding"]["y"]["stack"] for area in areas] == [None, None]
    assert [peak["bytes"] for peak in sets["peaks"]] == [schedule.plain.peak, schedule.peak]
    assert sets["budget"][0]["bytes"] == schedule.budget


def test_what_is_shaded_is_what_is_computed_again(schedule: Schedule) -> None:
    sets = data(remat_memory_figure(schedule, prefix="a"), "a-remat-memory")
    shaded = sum(stretch["stop"] - stretch["start"] for stretch in sets["again"])
    assert shaded == pytest.approx(sum(row.seconds for row in schedule.repeated()))
    assert min(stretch["start"] for stretch in sets["again"]) >= 0
    step = timeline(schedule.graph, schedule.order)
    assert len(stretches(step, 1e9)) == 1
    assert len(stretches(step, 0.0)) == len(sets["again"]) > 1


def test_the_plain_step_is_one_curve(front: Front) -> None:
    plain = front.schedules[0]
    sets = data(remat_memory_figure(plain, prefix="a"), "a-remat-memory")
    assert "scheduled" not in sets
    assert "again" not in sets
    assert "Nothing is computed again" in remat_places_figure(plain, prefix="a")
    assert "<svg" in drawn(remat_memory_chart(plain))


def test_the_bars_are_what_is_computed_again_where(schedule: Schedule) -> None:
    markup = remat_places_figure(schedule, prefix="a")
    bars = data(markup, "a-remat-places")["places"]
    assert [bar["times"] for bar in bars] == [p.share for p in schedule.places(len(bars))]
    forward = sum(node.seconds for node in schedule.graph.nodes[: schedule.graph.border])
    again = sum(row.seconds for row in schedule.repeated())
    assert sum(bar["times"] for bar in bars) / len(bars) == pytest.approx(again / forward)


def test_the_front_is_drawn_with_others_beside_it(front: Front, schedule: Schedule) -> None:
    others = [Other("worse", front.schedules[0].peak, 0.5), Other("better", 1, 0.0)]
    markup = remat_front_figure(front, others=others, chosen=schedule, prefix="a")
    sets = data(markup, "a-remat-front")
    ours = [(point["bytes"], point["share"]) for point in sets["ours"]]
    assert ours == sorted((s.peak, s.overhead) for s in front.schedules)
    for point in sets["ours"]:
        at = next(b for b in sets["bound"] if b["bytes"] >= point["bytes"])
        assert at["share"] <= point["share"] + 1e-9
    assert {point["name"] for point in sets["named"]} == {"plain", "worse", "better"}
    assert "as small and as fast as worse, or better" in markup
    assert sets["chosen"][0]["bytes"] == schedule.peak
    svg = drawn(remat_front_chart(front, others=others, chosen=schedule))
    for words in ("shoestring", "worse", "better", "plain", "chosen"):
        assert words in svg


@pytest.mark.parametrize(("unit", "word"), [("s", " s<"), ("FLOP", "FLOP<")])
def test_the_chart_is_drawn_in_its_unit(schedule: Schedule, unit: str, word: str) -> None:
    svg = drawn(remat_memory_chart(schedule, unit=unit))
    assert word in svg
    for words in ("forward", "backward", "computing again", f"budget {schedule.budget} B"):
        assert words in svg
    assert "What is computed again" in drawn(remat_places_chart(schedule))


def test_the_page_holds_all_and_asks_for_nothing(front: Front, schedule: Schedule) -> None:
    page = remat_page(schedule, front)
    title = f"{format_bytes(schedule.peak)} in place of {format_bytes(schedule.plain.peak)}"
    assert title in page
    for ident, name, _ in remat_sections(schedule, front, prefix="remat", level=2):
        assert f'href="#{ident}"' in page
        assert f'id="{ident}"' in page
        assert name in page
    assert "Content-Security-Policy" in page
    assert not re.search(r'(?:src|href)="(?!#)', page.partition("<script>")[0])
    assert len(remat_sections(schedule, prefix="a", level=3)) == 2
