"""What rematerialisation can reach: peak against what is computed again, and others beside it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from shoestring.activations.remat.answer import relative_gap
from shoestring.activations.remat.captured import Schedule
from shoestring.activations.remat.front import Front
from shoestring.core.markup import Html, table
from shoestring.core.units import format_bytes
from shoestring.report.figure import (
    BLUE,
    GREEN,
    GREY,
    OCHRE,
    ORANGE,
    PINK,
    PURPLE,
    ByteScale,
    Plot,
    byte_scale,
    figure,
    named,
    plot,
)
from shoestring.report.remat import standalone

if TYPE_CHECKING:
    import altair as alt

_HEIGHT: Final = 300
_WIDTH: Final = 620
_OTHERS: Final = (ORANGE, GREEN, PURPLE, PINK, OCHRE)
_TITLE: Final = "Peak against computing again"
_BOUND: Final = "no schedule is here"
_ROOM: Final = 0.15  # of the height, that the text needs
_PERCENT: Final = "format(datum.value, '.3~p')"


@dataclasses.dataclass(frozen=True, slots=True)
class Other:
    """Another way to run the step, to stand beside the front.

    Attributes:
        name: as it is written at its point.
        peak: bytes, counted as those of the front.
        overhead: seconds beyond the plain step's, as a share of those.
    """

    name: str
    peak: int
    overhead: float


def remat_front_figure(
    front: Front,
    *,
    others: Sequence[Other] = (),
    chosen: Schedule | None = None,
    prefix: str,
) -> Html:
    """Return the figure of peak against what is computed again.

    Args:
        front: the schedules.
        others: other ways to run the step, such as torch's own checkpointing.
        chosen: a schedule that is marked.
        prefix: what ids begin with.
    """
    return figure(
        _TITLE,
        _sentence(front, others),
        [_plot(front, others, chosen, f"{prefix}-remat-front")],
        table=_table(front, others),
    )


def remat_front_chart(
    front: Front,
    *,
    others: Sequence[Other] = (),
    chosen: Schedule | None = None,
    width: int = _WIDTH,
) -> alt.LayerChart:
    """Return a chart of peak against what is computed again, for a notebook or a file.

    Args:
        front: the schedules.
        others: other ways to run the step, such as torch's own checkpointing.
        chosen: a schedule that is marked.
        width: of the plot in pixels.

    Example:
        ``remat_front_chart(front, others=[Other("torch checkpoint", 2**30, 0.33)])``
    """
    return standalone(_plot(front, others, chosen, "remat-front"), _TITLE, width)


def _sentence(front: Front, others: Sequence[Other]) -> str:
    first, least = front.schedules[0], front.schedules[-1]
    if first is least:
        return f"One schedule is the smallest and the fastest: {format_bytes(first.peak)}."
    words = (
        f"Of {len(front.schedules)} schedules, none is both smaller and faster than another: from "
        f"{format_bytes(first.peak)} with nothing computed again to {format_bytes(least.peak)} "
        f"({least.peak / first.peak:.0%}) at {least.overhead:.0%} more time"
    )
    beaten = [other.name for other in others if _beats(front, other)]
    if beaten:
        words += f". One of them is as small and as fast as {', '.join(beaten)}, or better"
    return words + "."


def _beats(front: Front, other: Other) -> bool:
    return any(s.peak <= other.peak and s.overhead <= other.overhead for s in front.schedules)


def _plot(front: Front, others: Sequence[Other], chosen: Schedule | None, ident: str) -> Plot:
    import altair as alt

    rising = sorted(front.schedules, key=lambda s: s.peak)
    sizes = [front.schedules[0].plain.peak, *(s.peak for s in rising), *(o.peak for o in others)]
    shares = [s.overhead for s in rising] + [other.overhead for other in others]
    room = 0.08 * max(max(sizes) - min(sizes), 1)
    scale = byte_scale(max(min(sizes) - room, 0), max(sizes) + room, count=6)
    top = 1.12 * max(*shares, 0.05)
    bounds = [(s.budget, relative_gap(s.lower_bound, s.graph.seconds)) for s in rising]
    bounds.insert(0, (round(scale.low), bounds[0][1]))  # what holds there holds below as well
    far = scale.low + 0.65 * (scale.high - scale.low)
    data: dict[str, list[dict[str, object]]] = {
        "ours": [_row(s, s.answer.solver) for s in rising],
        "bound": [{"bytes": size, "share": share} for size, share in bounds],
        "words": [{"bytes": scale.low, "text": _BOUND}] if bounds[0][1] > _ROOM * top else [],
        "named": [
            {
                "bytes": other.peak,
                "share": other.overhead,
                "name": other.name,
                "peak": format_bytes(other.peak),
                "time": f"{other.overhead:+.1%}",
                "side": "left" if other.peak > far else "right",
                "colour": colour,
            }
            for other, colour in _coloured(front, others)
        ],
    }
    if chosen is not None:
        data["chosen"] = [_row(chosen, "chosen")]
    words = f"Peak against computing again. {_sentence(front, others)}"
    chart = alt.LayerChart(layer=_layers(scale, top, marked=chosen is not None))
    return plot(ident, chart, data, words=words, height=_HEIGHT)


def _coloured(front: Front, others: Sequence[Other]) -> list[tuple[Other, str]]:
    plain = Other("plain", front.schedules[0].plain.peak, 0.0)
    named_ones = [(other, _OTHERS[i % len(_OTHERS)]) for i, other in enumerate(others)]
    return [(plain, GREY), *named_ones]


def _row(schedule: Schedule, name: str) -> dict[str, object]:
    return {
        "bytes": schedule.peak,
        "share": schedule.overhead,
        "name": name,
        "peak": format_bytes(schedule.peak),
        "time": f"{schedule.overhead:+.1%}",
    }


def _layers(scale: ByteScale, top: float, *, marked: bool) -> list[alt.Chart]:
    import altair as alt

    x = alt.X(
        "bytes:Q",
        title="peak of forward and backward",
        scale=alt.Scale(domain=[scale.low, scale.high], nice=False),
        axis=alt.Axis(values=scale.ticks, labelExpr=scale.label, grid=False),
    )
    y = alt.Y(
        "share:Q",
        title="time beyond the plain step",
        scale=alt.Scale(domain=[0, top], nice=False),
        axis=alt.Axis(tickCount=5, labelExpr=_PERCENT),
    )
    tips = [alt.Tooltip("name:N"), alt.Tooltip("peak:N"), alt.Tooltip("time:N")]
    ours, others = alt.Chart(named("ours")), alt.Chart(named("named"))
    bound = alt.Chart(named("bound"))
    low = bound.mark_area(color=GREY, opacity=0.2, interpolate="step-before")
    edge = bound.mark_line(color=GREY, strokeWidth=1, interpolate="step-before")
    layers = [
        low.encode(x=x, y=y),
        edge.encode(x=x, y=y),
        # Between two schedules the smaller one is what fits.
        ours.mark_line(color=BLUE, strokeWidth=1.6, interpolate="step-after").encode(x=x, y=y),
        ours.mark_point(filled=True, opacity=1, size=36, color=BLUE).encode(x=x, y=y, tooltip=tips),
        others.mark_point(filled=True, opacity=1, size=110, shape="diamond").encode(
            x=x, y=y, color=alt.Color("colour:N", scale=None, legend=None), tooltip=tips
        ),
        ours.transform_window(rank="rank()", sort=[alt.SortField("bytes")])
        .transform_filter("datum.rank == 1")
        .mark_text(text="shoestring", align="left", dx=9, dy=-6)
        .encode(x=x, y=y),
        *(_names(others, x, y, side) for side in ("left", "right")),
        alt.Chart(named("words"))
        .mark_text(align="left", dx=6, dy=-9)
        .encode(x=x, y=alt.value("height"), text="text:N"),
    ]
    if marked:
        chosen = alt.Chart(named("chosen"))
        layers.append(chosen.mark_text(text="chosen", align="left", dx=9, dy=-12).encode(x=x, y=y))
        layers.append(
            chosen.mark_point(
                size=170, color="currentColor", strokeWidth=2, opacity=1, shape="circle"
            ).encode(x=x, y=y, tooltip=tips)
        )
    return layers


def _names(base: alt.Chart, x: alt.X, y: alt.Y, side: str) -> alt.Chart:
    left = side == "left"
    shown: alt.Chart = (
        base.transform_filter(f"datum.side == '{side}'")
        .mark_text(align="right" if left else "left", dx=-9 if left else 9, dy=-9)
        .encode(x=x, y=y, text="name:N")
    )
    return shown


def _table(front: Front, others: Sequence[Other]) -> Html:
    plain = front.schedules[0].plain.peak
    rows = [
        [
            "plain step" if s.order == s.graph.plain else "shoestring",
            format_bytes(s.peak),
            f"{s.peak / plain:.0%}" if plain else "",
            f"{s.overhead:.1%}",
            f"{relative_gap(s.lower_bound, s.graph.seconds):.1%}",
        ]
        for s in front.schedules
    ]
    rows += [
        [
            other.name,
            format_bytes(other.peak),
            f"{other.peak / plain:.0%}" if plain else "",
            f"{other.overhead:.1%}",
            "",
        ]
        for other in others
    ]
    heads = ["Way to run the step", "Peak", "Of plain", "More time", "At least"]
    return table("Peak and time of each", heads, rows, numbers=(1, 2, 3, 4))
