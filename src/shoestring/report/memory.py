"""The memory of one step over time: stacked areas by what they hold, plain and planned."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from shoestring.core.markup import Html, table
from shoestring.core.run_folder import Memory, Timeline
from shoestring.core.units import format_bytes
from shoestring.report.figure import (
    GREY,
    KIND_COLOURS,
    ByteScale,
    Key,
    Plot,
    byte_scale,
    bytes_and_share,
    figure,
    named,
    plot,
)
from shoestring.report.thin import kept

if TYPE_CHECKING:
    import altair as alt

_MOST_POINTS: Final = 800
_HEIGHT: Final = 240
# A budget much higher than the curves would press them flat: then it is told, not drawn.
_BUDGET_IN_SIGHT: Final = 2.5
# A stretch must be this much of the step for its name to have room on a phone.
_NAMED_STRETCH: Final = 0.2


def memory_figure(
    timeline: Timeline, budget: int | None, *, reserved: int = 0, prefix: str
) -> Html:
    """Return the figure of a run's memory.

    Args:
        timeline: what one step costs.
        budget: bytes of the whole step, or None.
        reserved: bytes of the budget that a card's context and reserve take, not drawn.
        prefix: what ids begin with.
    """
    steps = {"plain": timeline.plain, "planned": timeline.planned}
    names = _names(list(steps.values()))
    top = max(timeline.plain.peak, timeline.planned.peak, *map(_most, steps.values()), 1)
    line = None if budget is None else budget - reserved
    drawn = line if line is not None and 0 < line <= _BUDGET_IN_SIGHT * top else None
    scale = byte_scale(0, 1.08 * max(top, drawn or 0))
    plots = [
        _plot(f"{prefix}-memory-{label}", label, memory, names, scale, drawn)
        for label, memory in steps.items()
        if memory.phases
    ]
    legend = [Key(name, KIND_COLOURS.get(name, GREY)) for name in reversed(names)]
    phases = {phase for memory in steps.values() for phase in memory.phases}
    strip = [Key(name, opacity=shade) for name, shade in _SHADES.items() if name in phases]
    return figure(
        "Memory of one step",
        _sentence(timeline, budget, reserved, drawn=drawn is not None),
        plots,
        table=_table(steps, names),
        legend=legend,
        more_legend=strip,
    )


def _names(memories: Sequence[Memory]) -> list[str]:
    """Return what the bytes hold, from the bottom of the stack up; what holds none is left out."""
    seen = {name for m in memories for name, sizes in m.kinds.items() if any(sizes)}
    return [name for name in KIND_COLOURS if name in seen] + sorted(seen - set(KIND_COLOURS))


def _totals(memory: Memory) -> list[int]:
    if not memory.kinds:
        return [0] * len(memory.phases)
    return [sum(sizes) for sizes in zip(*memory.kinds.values(), strict=True)]


def _most(memory: Memory) -> int:
    return max(_totals(memory), default=0)


def _sentence(timeline: Timeline, budget: int | None, reserved: int, *, drawn: bool) -> str:
    plain, planned = timeline.plain.peak, timeline.planned.peak
    saved = 1 - planned / plain if plain else 0.0
    words = (
        f"Predicted: {format_bytes(plain)} at the peak of the plain step, "
        f"{format_bytes(planned)} as planned ({saved:.0%} less)."
    )
    if budget is None:
        return words + " There is no budget."
    words += f" The budget is {format_bytes(budget)}"
    if reserved:
        words += f", of which a card's context and reserve take {format_bytes(reserved)}"
    return words + (": the dashed line." if drawn else ", beyond the charts.")


def _plot(
    ident: str,
    label: str,
    memory: Memory,
    names: Sequence[str],
    scale: ByteScale,
    budget: float | None,
) -> Plot:
    import altair as alt

    totals = _totals(memory)
    points = kept(totals, _MOST_POINTS)
    last = max(len(totals) - 1, 1)
    at = totals.index(max(totals))
    data = {
        "areas": _areas(memory, points, last, names),
        "peak": [{"x": at / last, "bytes": totals[at], "text": format_bytes(totals[at])}],
        "phases": [dataclasses.asdict(stretch) for stretch in _stretches(memory.phases)],
    }
    layers = [_stack(names, scale), *_peak_layers(at / last), *_phase_layers()]
    if budget is not None:
        data["budget"] = [{"bytes": budget, "text": f"budget {format_bytes(budget)}"}]
        layers += _budget_layers(totals)
    words = (
        f"Stacked areas of the bytes alive during the {label} step; the peak of "
        f"{format_bytes(memory.peak)} is in {memory.phases[at]}."
    )
    chart = alt.LayerChart(layer=layers).resolve_scale(color="independent", opacity="independent")
    return plot(ident, chart, data, words=words, label=f"{label} step", height=_HEIGHT)


def _areas(
    memory: Memory, points: Sequence[int], last: int, names: Sequence[str]
) -> list[dict[str, object]]:
    return [
        {"x": i / last, "kind": name, "order": order, "bytes": memory.kinds[name][i]}
        for order, name in enumerate(names)
        if name in memory.kinds
        for i in points
    ]


def _stack(names: Sequence[str], scale: ByteScale) -> alt.Chart:
    import altair as alt

    colours = [KIND_COLOURS.get(name, GREY) for name in names]
    stack: alt.Chart = (
        alt.Chart(named("areas"))
        .mark_area(interpolate="linear", opacity=0.92)
        .encode(
            x=alt.X(
                "x:Q",
                axis=alt.Axis(labels=False, grid=False, title="operations of the step, in order"),
                scale=alt.Scale(domain=[0, 1], nice=False),
            ),
            y=alt.Y(
                "bytes:Q",
                title=None,
                stack="zero",
                scale=alt.Scale(domain=[scale.low, scale.high], nice=False),
                axis=alt.Axis(values=scale.ticks, labelExpr=scale.label),
            ),
            color=alt.Color(
                "kind:N", legend=None, scale=alt.Scale(domain=list(names), range=colours)
            ),
            order=alt.Order("order:Q"),
        )
    )
    return stack


def _peak_layers(at: float) -> list[alt.Chart]:
    import altair as alt

    left = at > 0.5
    base = alt.Chart(named("peak")).encode(x="x:Q", y="bytes:Q")
    return [
        base.mark_point(size=40, filled=True, opacity=1, color="currentColor"),
        base.mark_text(
            align="right" if left else "left", dx=-8 if left else 8, dy=-4, fontWeight="bold"
        ).encode(text="text:N"),
    ]


def _budget_layers(totals: Sequence[int]) -> list[alt.Chart]:
    import altair as alt

    base = alt.Chart(named("budget")).encode(y="bytes:Q")
    # Its name stands on the side on which less is drawn.
    third = len(totals) // 3 + 1
    right = max(totals[:third]) > max(totals[-third:])
    return [
        base.mark_rule(strokeDash=[6, 4], strokeWidth=1.5),
        base.mark_text(align="right" if right else "left", dx=-4 if right else 4, dy=-8).encode(
            x=alt.value("width" if right else 0), text="text:N"
        ),
    ]


@dataclasses.dataclass(frozen=True, slots=True)
class _Stretch:
    """A part of the step in one phase, as a share of the step."""

    start: float
    stop: float
    phase: str
    name: str
    shade: float


_SHADES: Final = {"forward": 0.25, "recompute": 0.45, "backward": 0.65, "optimizer": 0.9}


def _stretches(phases: Sequence[str]) -> list[_Stretch]:
    last = max(len(phases) - 1, 1)
    found: list[_Stretch] = []
    position = 0
    for phase, group in itertools.groupby(phases):
        count = len(list(group))
        start, stop = position / last, min((position + count) / last, 1.0)
        found.append(_Stretch(start, stop, phase, "", _SHADES.get(phase, 0.5)))
        position += count
    for phase in set(phases):
        widest = max((s for s in found if s.phase == phase), key=lambda s: s.stop - s.start)
        if widest.stop - widest.start >= _NAMED_STRETCH:
            found[found.index(widest)] = dataclasses.replace(widest, name=phase)
    return found


def _phase_layers() -> list[alt.Chart]:
    import altair as alt

    phases = alt.Chart(named("phases"))
    strip = phases.mark_rect(color="currentColor").encode(
        x="start:Q",
        x2="stop:Q",
        y=alt.value(-10),
        y2=alt.value(-4),
        opacity=alt.Opacity("shade:Q", legend=None, scale=None),
        tooltip=alt.Tooltip("phase:N"),
    )
    words = (
        phases.transform_calculate(middle="(datum.start + datum.stop) / 2")
        .mark_text(dy=-18, baseline="middle")
        .encode(x="middle:Q", y=alt.value(0), text="name:N")
    )
    return [strip, words]


def _table(steps: dict[str, Memory], names: Sequence[str]) -> Html:
    """Return what is alive at the peak of each phase: a row each, a column for each kind."""
    rows = []
    for label, memory in steps.items():
        totals = _totals(memory)
        for phase in dict.fromkeys(memory.phases):
            inside = [i for i, other in enumerate(memory.phases) if other == phase]
            at = max(inside, key=totals.__getitem__)
            sizes = [memory.kinds.get(name, [0] * len(totals))[at] for name in names]
            row = [f"{label}, {phase}", format_bytes(totals[at])]
            rows.append(row + [bytes_and_share(size, totals[at]) for size in sizes])
    return table(
        "Bytes alive at the highest point of each phase, by what they hold",
        ["Step and phase", "All", *names],
        rows,
        numbers=range(1, len(names) + 2),
    )
