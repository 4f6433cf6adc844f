"""Where along the forward a schedule computes again, and which operations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shoestring.activations.remat.captured import Schedule
from shoestring.core.markup import Html, table
from shoestring.report.figure import ORANGE, Plot, figure, named, plot
from shoestring.report.remat import standalone

if TYPE_CHECKING:
    import altair as alt

_TITLE: Final = "What is computed again along the forward"
_COUNT: Final = 60
_HEIGHT: Final = 110
_WIDTH: Final = 720


def remat_places_figure(schedule: Schedule, *, prefix: str) -> Html:
    """Return the figure of what is computed again where.

    Args:
        schedule: what is kept and computed again.
        prefix: what ids begin with.
    """
    plots = [_plot(schedule, f"{prefix}-remat-places")] if schedule.overhead else []
    return figure(_TITLE, _sentence(schedule), plots, table=_table(schedule))


def remat_places_chart(schedule: Schedule, *, width: int = _WIDTH) -> alt.LayerChart:
    """Return a chart of what is computed again where, for a notebook or a file.

    Args:
        schedule: what is kept and computed again.
        width: of the plot in pixels.
    """
    return standalone(_plot(schedule, "remat-places"), _TITLE, width)


def _sentence(schedule: Schedule) -> str:
    rows = list(schedule.repeated())
    if not rows:
        return "Nothing is computed again."
    whole = sum(row.seconds for row in rows)
    words = f"Each bar is one of {_COUNT} equal times of the forward. Most of the time goes to "
    tops = [
        f"{row.kind} ({row.times} x, {row.seconds / whole:.0%} of it)"
        for row in rows[:3]
        if whole and row.seconds >= 0.05 * whole
    ]
    return words + ", ".join(tops) + "." if tops else f"Each bar is one of {_COUNT} equal times."


def _plot(schedule: Schedule, ident: str) -> Plot:
    import altair as alt

    found = schedule.places(_COUNT)
    count = len(found)
    top = max(1.0, *(place.share for place in found))
    data: dict[str, list[dict[str, object]]] = {
        "places": [
            {
                "start": (i + 0.08) / count,
                "stop": (i + 0.92) / count,
                "times": place.share,
                "told": f"{place.share:.2f} x",
            }
            for i, place in enumerate(found)
        ]
    }
    bars = (
        alt.Chart(named("places"))
        .mark_rect(color=ORANGE)
        .encode(
            x=alt.X(
                "start:Q",
                title="time of the forward",
                scale=alt.Scale(domain=[0, 1], nice=False),
                axis=alt.Axis(grid=False, tickCount=5, labelExpr="format(datum.value, '.0%')"),
            ),
            x2="stop:Q",
            y=alt.Y(
                "times:Q",
                title=None,
                scale=alt.Scale(domain=[0, top], nice=False),
                axis=alt.Axis(tickMinStep=1, tickCount=3, labelExpr="datum.label + ' x'"),
            ),
            y2=alt.datum(0),
            tooltip=alt.Tooltip("told:N", title="computed again"),
        )
    )
    words = f"{_TITLE}. {_sentence(schedule)}"
    return plot(ident, alt.LayerChart(layer=[bars]), data, words=words, height=_HEIGHT)


def _table(schedule: Schedule) -> Html:
    whole = schedule.graph.seconds or 1.0
    rows = [
        [row.kind, str(row.times), str(row.forward), f"{row.seconds / whole:.1%}"]
        for row in schedule.repeated()
    ]
    heads = ["Operation", "Computed again", "In the forward", "Of the plain step's time"]
    return table("What is computed again, by operation", heads, rows, numbers=(1, 2, 3))
