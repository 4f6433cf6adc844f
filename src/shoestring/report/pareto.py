"""What plans exist: memory against time, the chosen one marked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from shoestring.core.markup import Html, table, tag
from shoestring.core.units import format_bytes, format_seconds
from shoestring.planner.figures import Row
from shoestring.planner.plan import Plan
from shoestring.report.figure import (
    BLUE,
    ORANGE,
    SECONDS_LABEL,
    ByteScale,
    Key,
    byte_scale,
    figure,
    named,
    plot,
)

if TYPE_CHECKING:
    import altair as alt


def pareto_figure(plan: Plan, *, prefix: str) -> Html:
    """Return the figure of memory against time.

    Args:
        plan: the plan.
        prefix: what ids begin with.
    """
    points = _points(plan)
    if not points:
        return tag("p", "The plan has no rows to compare.", cls="missing")
    sizes = [row.figures.footprint for row in points]
    near = plan.budget is not None and plan.budget <= 1.5 * max(sizes)
    ends = [*sizes, plan.budget] if near and plan.budget is not None else sizes
    low, high = min(ends), max(ends)
    room = 0.12 * max(high - low, 0.1 * high)
    scale = byte_scale(max(low - room, 0), high + room, count=4)
    data: dict[str, list[dict[str, object]]] = {
        "points": [
            {
                "bytes": row.figures.footprint,
                "seconds": row.figures.seconds,
                "label": row.label,
                "peak": format_bytes(row.figures.footprint),
                "time": format_seconds(row.figures.seconds),
                "role": "chosen" if row.planned else "other",
                "name": "chosen" if row.planned else "plain" if row.figures == plan.plain else "",
            }
            for row in points
        ],
    }
    words = _sentence(plan, points)
    if near:
        data["budget"] = [{"bytes": plan.budget, "text": "budget"}]
    chart = _chart(scale, budget=near)
    return figure(
        "Memory against time",
        words,
        [plot(f"{prefix}-pareto", chart, data, words=f"Memory against time. {words}", height=240)],
        table=_table(points),
        legend=[Key("chosen", ORANGE), Key("other plans", BLUE)],
    )


def _points(plan: Plan) -> list[Row]:
    """Return the rows that are drawn: the plans, the plain step, and the chosen plan."""
    rows = list(plan.pareto)
    if all(row.figures != plan.plain for row in rows):
        rows += [row for row in plan.rows if row.figures == plan.plain][:1]
    if not any(row.planned for row in rows):
        rows += [row for row in plan.rows if row.planned][:1]
    return sorted(rows, key=lambda row: row.figures.footprint)


def _sentence(plan: Plan, points: Sequence[Row]) -> str:
    count = len(plan.pareto)
    words = (
        "One plan is the smallest and the fastest"
        if count == 1
        else f"Of {count} plans, none is both smaller and faster than another"
    )
    for row in points:
        if row.planned:
            words += (
                f"; chosen: {format_bytes(row.figures.footprint)} and "
                f"{format_seconds(row.figures.seconds)} a step (estimated)"
            )
            break
    if plan.predicted.footprint != plan.predicted.peak:
        words += ". Memory is with the card's context and reserve"
    return words + "."


def _chart(scale: ByteScale, *, budget: bool) -> alt.LayerChart:
    import altair as alt

    colour = alt.Color(
        "role:N",
        legend=None,
        scale=alt.Scale(domain=["chosen", "other"], range=[ORANGE, BLUE]),
    )
    x = alt.X(
        "bytes:Q",
        title="memory",
        scale=alt.Scale(domain=[scale.low, scale.high], nice=False),
        axis=alt.Axis(values=scale.ticks, labelExpr=scale.label, grid=False),
    )
    y = alt.Y(
        "seconds:Q",
        title="time of a step",
        scale=alt.Scale(zero=False, nice=True, padding=12),
        axis=alt.Axis(
            tickCount=5,
            labelExpr=SECONDS_LABEL,
        ),
    )
    base = alt.Chart(named("points"))
    line = base.mark_line(
        color="currentColor", opacity=0.35, strokeWidth=1, interpolate="step-after"
    ).encode(x=x, y=y)
    dots = base.mark_point(filled=True, opacity=1).encode(
        x=x,
        y=y,
        color=colour,
        shape=alt.Shape(
            "role:N",
            legend=None,
            scale=alt.Scale(domain=["chosen", "other"], range=["diamond", "circle"]),
        ),
        size=alt.condition("datum.role == 'chosen'", alt.value(220), alt.value(70)),
        tooltip=[alt.Tooltip("label:N"), alt.Tooltip("peak:N"), alt.Tooltip("time:N")],
    )
    names = base.mark_text(dy=-16).encode(x=x, y=y, text="name:N")
    layers = [line, dots, names]
    if budget:
        rule = alt.Chart(named("budget")).encode(x="bytes:Q")
        layers += [
            rule.mark_rule(strokeDash=[6, 4], strokeWidth=1.5),
            rule.mark_text(align="right", dx=-5, dy=8).encode(y=alt.value(0), text="text:N"),
        ]
    return alt.LayerChart(layer=layers)


def _table(points: Sequence[Row]) -> Html:
    rows = [
        [
            row.label,
            format_bytes(row.figures.footprint),
            format_seconds(row.figures.seconds),
            row.fidelity,
            "yes" if row.fits else "no",
            "yes" if row.planned else "no",
        ]
        for row in points
    ]
    return table(
        "Plans by memory and time of a step",
        ["Plan", "Memory", "Step time", "Gradients", "Fits", "Chosen"],
        rows,
        numbers=(1, 2),
        marked=[i for i, row in enumerate(points) if row.planned],
    )
