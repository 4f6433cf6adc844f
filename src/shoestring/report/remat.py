"""The memory of a rematerialised step over time, beside the plain one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from shoestring.activations.remat.captured import Schedule
from shoestring.activations.remat.timeline import Timeline, timeline
from shoestring.core.markup import Html, table
from shoestring.core.units import format_bytes, format_count, format_seconds
from shoestring.report.figure import (
    BLUE,
    GREY,
    ORANGE,
    SECONDS_LABEL,
    ByteScale,
    Plot,
    byte_scale,
    figure,
    named,
    plot,
)
from shoestring.report.thin import kept

if TYPE_CHECKING:
    import altair as alt

Unit: TypeAlias = Literal["s", "FLOP"]
"""What a schedule's seconds are: with costs in FLOPs they are FLOPs."""

_MOST_POINTS: Final = 1000
_HEIGHT: Final = 280
_WIDTH: Final = 720
# A budget much higher than the curves would press them flat: then it is told, not drawn.
_BUDGET_IN_SIGHT: Final = 1.5
# Stretches nearer to each other than this share of the step are drawn as one.
_GAP: Final = 0.004
_SHADE: Final = 0.28
_COLOURS: Final = {"plain": GREY, "scheduled": BLUE}
# A peak above this share of the budget is named along with it: two texts would lie on each other.
_NEAR: Final = 0.9
# Room that the budget's text needs on the left, as a share of the width.
_LABEL: Final = 0.35
_TITLE: Final = "Memory of forward and backward"
_FLOPS_LABEL: Final = "format(datum.value, '.3~s') + 'FLOP'"


def remat_memory_figure(schedule: Schedule, *, prefix: str, unit: Unit = "s") -> Html:
    """Return the figure of a schedule's memory over the step.

    Args:
        schedule: what is kept and computed again.
        prefix: what ids begin with.
        unit: what its seconds are.
    """
    return figure(
        _TITLE,
        _sentence(schedule),
        [_plot(schedule, f"{prefix}-remat-memory", unit)],
        table=_table(schedule, unit),
    )


def remat_memory_chart(
    schedule: Schedule, *, unit: Unit = "s", width: int = _WIDTH
) -> alt.LayerChart:
    """Return a chart of a schedule's memory over the step, for a notebook or a file.

    Args:
        schedule: what is kept and computed again.
        unit: what its seconds are.
        width: of the plot in pixels.

    Example:
        ``remat_memory_chart(schedule).save("memory.png")``
    """
    return standalone(_plot(schedule, "remat-memory", unit), _TITLE, width)


def standalone(drawn: Plot, title: str, width: int) -> alt.LayerChart:
    """Return a plot of the page as a chart of its own.

    Args:
        drawn: the plot.
        title: what stands above it.
        width: in pixels.
    """
    import altair as alt

    heading = {"text": title, "anchor": "start", "offset": 14}
    looks = {"width": width, "title": heading, "background": "white", "padding": 12}
    spec = {**drawn.spec, **looks}
    # Not checked against the schema again: with all data in it that takes seconds.
    chart: alt.LayerChart = alt.LayerChart.from_dict(spec, validate=False)
    return chart


def _sentence(schedule: Schedule) -> str:
    plain, peak = schedule.plain.peak, schedule.peak
    if schedule.order == schedule.graph.plain:
        return f"Nothing is computed again: {format_bytes(peak)} at the peak."
    saved = 1 - peak / plain if plain else 0.0
    words = (
        f"The peak is {format_bytes(peak)} in place of {format_bytes(plain)} ({saved:.0%} less); "
        f"computing again takes {schedule.overhead:.1%} of the plain step's time. "
        f"The budget is {format_bytes(schedule.budget)}"
    )
    return words + (": the dashed line." if _in_sight(schedule) else ", beyond the chart.")


def _in_sight(schedule: Schedule) -> bool:
    return schedule.budget <= _BUDGET_IN_SIGHT * schedule.plain.peak


def _plot(schedule: Schedule, ident: str, unit: Unit) -> Plot:
    import altair as alt

    steps = {"plain": timeline(schedule.graph, schedule.graph.plain)}
    if schedule.order != schedule.graph.plain:
        steps["scheduled"] = timeline(schedule.graph, schedule.order)
    budget = schedule.budget if _in_sight(schedule) else None
    scale = byte_scale(0, 1.18 * max(schedule.plain.peak, schedule.peak, budget or 0, 1), count=6)
    ends = _ends(list(steps.values()))
    data: dict[str, list[dict[str, object]]] = {name: _curve(s) for name, s in steps.items()}
    data["sides"] = [
        {"x": 0.0, "name": "forward", "side": "left"},
        {"x": 0.0, "name": "backward", "side": "right"},
    ]
    near = budget is not None and schedule.peak > _NEAR * budget
    data["peaks"] = [
        _peak(step, name, ends, told=name == "plain" or not near) for name, step in steps.items()
    ]
    layers = [*_curves(scale, ends, list(steps), unit), *_borders(), *_peaks()]
    again = stretches(steps.get("scheduled"), _GAP * (ends[1] - ends[0]))
    if again:
        data["again"] = [{"start": one.start, "stop": one.stop} for one in again]
        layers = [*_shades(), *layers]
    if budget is not None:
        text = f"budget {format_bytes(budget)}"
        if near and "scheduled" in steps:
            text = f"scheduled {format_bytes(schedule.peak)}, {text}"
        left = _free_until(steps["plain"], budget, ends) > _LABEL
        data["budget"] = [{"bytes": budget, "text": text}]
        layers += _budget_layers(left=left)
    words = f"Bytes over the time of a step, forward and backward. {_sentence(schedule)}"
    return plot(ident, alt.LayerChart(layer=layers), data, words=words, height=_HEIGHT)


def _ends(steps: Sequence[Timeline]) -> tuple[float, float]:
    return min(step.starts[0] for step in steps), max(step.ends[-1] for step in steps)


def _free_until(step: Timeline, size: int, ends: tuple[float, float]) -> float:
    """Return the share of the chart in which a curve stays below a size at first."""
    above = (start for start, b in zip(step.starts, step.bytes, strict=True) if b > size)
    return (next(above, ends[1]) - ends[0]) / ((ends[1] - ends[0]) or 1.0)


def _curve(step: Timeline) -> list[dict[str, object]]:
    """Return the corners of a curve that holds each operation's bytes until the next one."""
    points: list[dict[str, object]] = [
        {"x": step.starts[i], "bytes": step.bytes[i]} for i in kept(step.bytes, _MOST_POINTS)
    ]
    return [*points, {"x": step.ends[-1], "bytes": step.bytes[-1]}]


@dataclasses.dataclass(frozen=True, slots=True)
class Stretch:
    """A time in which operations are computed again.

    Attributes:
        start: in seconds from the border.
        stop: where it ends.
    """

    start: float
    stop: float


def stretches(step: Timeline | None, gap: float) -> list[Stretch]:
    """Return when operations are computed again.

    Args:
        step: over time; None for one that computes nothing again.
        gap: stretches that are no further apart than this, in seconds, are one.
    """
    found: list[Stretch] = []
    if step is None:
        return found
    for start, stop, again in zip(step.starts, step.ends, step.again, strict=True):
        if not again:
            continue
        if found and start - found[-1].stop <= gap:
            found[-1] = Stretch(found[-1].start, stop)
        else:
            found.append(Stretch(start, stop))
    return found


def _peak(step: Timeline, name: str, ends: tuple[float, float], *, told: bool) -> dict[str, object]:
    at = step.bytes.index(max(step.bytes))
    return {
        "x": step.starts[at],
        "bytes": step.bytes[at],
        "step": name,
        "text": f"{name} {format_bytes(step.bytes[at])}" if told else "",
        "side": "left" if step.starts[at] > ends[0] + 0.7 * (ends[1] - ends[0]) else "right",
    }


def _shades() -> list[alt.Chart]:
    import altair as alt

    again = alt.Chart(named("again"))
    once = again.transform_aggregate(count="count()")
    # Aligned to the left: how wide the words are depends on the page's font.
    place, words = (alt.value({"expr": f"width - {room}"}) for room in (122, 112))
    key = once.mark_point(shape="square", filled=True, size=110, color=ORANGE, opacity=2 * _SHADE)
    name = once.mark_text(text="computing again", align="left")
    return [
        again.mark_rect(color=ORANGE, opacity=_SHADE).encode(x="start:Q", x2="stop:Q"),
        key.encode(x=place, y=alt.value(-10)),
        name.encode(x=words, y=alt.value(-10)),
    ]


def _curves(
    scale: ByteScale, ends: tuple[float, float], names: Sequence[str], unit: Unit
) -> list[alt.Chart]:
    import altair as alt

    x = alt.X(
        "x:Q",
        scale=alt.Scale(domain=list(ends), nice=False),
        axis=alt.Axis(
            grid=False,
            tickCount=7,
            title="time before and after the loss",
            labelExpr=SECONDS_LABEL if unit == "s" else _FLOPS_LABEL,
        ),
    )
    y = alt.Y(
        "bytes:Q",
        title=None,
        stack=None,  # operations that take no time share a place
        scale=alt.Scale(domain=[scale.low, scale.high], nice=False),
        axis=alt.Axis(values=scale.ticks, labelExpr=scale.label),
    )
    layers = []
    for name in names:
        base, colour = alt.Chart(named(name)), _COLOURS[name]
        layers += [
            base.mark_area(color=colour, opacity=0.18, interpolate="step-after").encode(x=x, y=y),
            base.mark_line(color=colour, strokeWidth=1.5, interpolate="step-after").encode(
                x=x, y=y
            ),
        ]
    return layers


def _borders() -> list[alt.Chart]:
    import altair as alt

    sides = alt.Chart(named("sides"))
    rule = sides.mark_rule(strokeWidth=1, opacity=0.6).encode(x="x:Q")
    return [rule, *_sided(sides, "name", y=alt.value(8), dx=6, dy=0)]


def _peaks() -> list[alt.Chart]:
    import altair as alt

    peaks = alt.Chart(named("peaks"))
    colour = alt.Color(
        "step:N",
        legend=None,
        scale=alt.Scale(domain=list(_COLOURS), range=list(_COLOURS.values())),
    )
    dots = peaks.mark_point(filled=True, opacity=1, size=45).encode(
        x="x:Q", y="bytes:Q", color=colour
    )
    return [dots, *_sided(peaks, "text", y=alt.Y("bytes:Q"), dx=8, dy=-8, bold=True)]


def _sided(
    base: alt.Chart, text: str, *, y: object, dx: int, dy: int, bold: bool = False
) -> list[alt.Chart]:
    """Return texts that stand to the left or to the right of their points."""
    return [
        base.transform_filter(f"datum.side == '{side}'")
        .mark_text(
            align="right" if side == "left" else "left",
            dx=-dx if side == "left" else dx,
            dy=dy,
            fontWeight="bold" if bold else "normal",
        )
        .encode(x="x:Q", y=y, text=f"{text}:N")
        for side in ("left", "right")
    ]


def _budget_layers(*, left: bool) -> list[alt.Chart]:
    import altair as alt

    base = alt.Chart(named("budget")).encode(y="bytes:Q")
    words = base.mark_text(align="left" if left else "right", dx=4 if left else -4, dy=-8)
    return [
        base.mark_rule(strokeDash=[6, 4], strokeWidth=1.5),
        words.encode(x=alt.value(0 if left else "width"), text="text:N"),
    ]


def _table(schedule: Schedule, unit: Unit) -> Html:
    graph = schedule.graph
    steps = ((schedule.plain, graph.seconds), (schedule.run, schedule.answer.seconds))
    written = format_seconds if unit == "s" else lambda count: f"{format_count(count)}FLOP"
    rows: Sequence[Sequence[str]] = [
        ["Peak", *(format_bytes(run.peak) for run, _ in steps)],
        ["Kept from forward to backward", *(format_bytes(graph.sizes(r.kept)) for r, _ in steps)],
        ["Time of the operations", *(written(seconds) for _, seconds in steps)],
        ["Operations", str(len(graph.nodes)), str(len(schedule.order))],
        *(
            [f"Computed again: {row.kind}", "0", f"{row.times} of {row.forward}"]
            for row in schedule.repeated()
        ),
    ]
    return table("Plain and scheduled step", ["Figure", "Plain", "Scheduled"], rows, numbers=(1, 2))
