"""Loss and metrics over steps, of one run or of several on one chart."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from shoestring.core.markup import Html, table
from shoestring.core.run_folder import Entry
from shoestring.core.units import format_seconds
from shoestring.report.figure import (
    BLUE,
    GREEN,
    GREY,
    OCHRE,
    ORANGE,
    PINK,
    PURPLE,
    SECONDS_LABEL,
    Key,
    figure,
    named,
    plot,
)
from shoestring.report.thin import kept

if TYPE_CHECKING:
    import altair as alt

_MOST_POINTS: Final = 1500
_MOST_ROWS: Final = 200
_DOTS_UP_TO: Final = 60
_TOLD_UP_TO: Final = 8
_COLOURS: Final = (BLUE, ORANGE, GREEN, PINK, PURPLE, OCHRE, GREY)
_DASHES: Final = ([1, 0], [7, 3], [2, 3], [9, 3, 2, 3])


@dataclasses.dataclass(frozen=True, slots=True)
class Series:
    """One value over steps.

    Attributes:
        name: of the line.
        kind: ``train`` or ``eval``.
        points: (step, finite value) in the order of the log.
        lost: steps at which the value was not finite.
    """

    name: str
    kind: str
    points: tuple[tuple[int, float], ...]
    lost: tuple[int, ...] = ()


def series(log: Sequence[Entry], value: str, kind: str, name: str) -> Series:
    """Return one value of a log.

    Args:
        log: the entries.
        value: name of the value, as in ``loss``.
        kind: ``train`` or ``eval``.
        name: of the line.
    """
    found = [(e.step, e.values[value]) for e in log if e.kind == kind and value in e.values]
    return Series(
        name,
        kind,
        tuple(point for point in found if math.isfinite(point[1])),
        tuple(step for step, number in found if not math.isfinite(number)),
    )


def value_names(log: Sequence[Entry]) -> list[str]:
    """Return the names of a log's values: the loss, then metrics, then the rest of training.

    Args:
        log: the entries.
    """
    evaluated = dict.fromkeys(name for e in log if e.kind == "eval" for name in e.values)
    trained = dict.fromkeys(name for e in log if e.kind == "train" for name in e.values)
    names = [*evaluated, *(name for name in trained if name not in evaluated)]
    return sorted(names, key=lambda name: name != "loss")


def curves_figure(
    value: str, lines: Sequence[Series], *, prefix: str, heading: str = "", small: bool = False
) -> Html:
    """Return the figure of one value over steps.

    Args:
        value: name of the value.
        lines: what is drawn; those without points are left out.
        prefix: what ids begin with.
        heading: of the figure; the value's name by default.
        small: whether it is one of many.
    """
    shown = [line for line in lines if line.points]
    names = list(dict.fromkeys(line.name for line in shown))
    colours = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(names)}
    spoken = value.replace("_", " ")
    title = heading or spoken[:1].upper() + spoken[1:]
    words = _sentence(value, lines)
    plots = []
    if shown:
        data = {kind: _points(shown, kind) for kind in ("train", "eval")}
        data["dots"] = _dots(shown)
        # A layer without data would be drawn over an axis without end.
        data = {layer: points for layer, points in data.items() if points}
        chart = _chart(value, colours, list(data))
        height = 130 if small else 260
        plots = [plot(f"{prefix}-curve", chart, data, words=f"{title}. {words}", height=height)]
    legend = [Key(name, colour) for name, colour in colours.items()] if len(names) > 1 else []
    return figure(title, words, plots, table=_table(value, shown), legend=legend)


def _points(lines: Sequence[Series], kind: str) -> list[dict[str, object]]:
    return [
        {"step": step, "value": value, "name": line.name}
        for line in lines
        if line.kind == kind
        for step, value in _drawn(line)
    ]


def _dots(lines: Sequence[Series]) -> list[dict[str, object]]:
    """Return the points that are marked: evaluations, and a short training log."""
    return [
        {"step": step, "value": value, "name": line.name, "kind": line.kind}
        for line in lines
        if line.kind == "eval" or len(line.points) <= _DOTS_UP_TO
        for step, value in _drawn(line)
    ]


def _drawn(line: Series) -> list[tuple[int, float]]:
    return [line.points[i] for i in kept([value for _, value in line.points], _MOST_POINTS)]


def _chart(value: str, colours: Mapping[str, str], layers: Sequence[str]) -> alt.LayerChart:
    import altair as alt

    colour = alt.Color(
        "name:N", legend=None, scale=alt.Scale(domain=list(colours), range=list(colours.values()))
    )
    dashes = [_DASHES[i // len(_COLOURS) % len(_DASHES)] for i in range(len(colours))]
    x = alt.X("step:Q", title="step", axis=alt.Axis(grid=False, tickMinStep=1, tickCount=6))
    y = alt.Y(
        "value:Q",
        title=None,
        scale=alt.Scale(zero=False, nice=True),
        axis=alt.Axis(labelExpr=_label(value), tickCount=5),
    )
    trained = (
        alt.Chart(named("train"))
        .mark_line(strokeWidth=1.8)
        .encode(
            x=x,
            y=y,
            color=colour,
            strokeDash=alt.StrokeDash(
                "name:N", legend=None, scale=alt.Scale(domain=list(colours), range=dashes)
            ),
        )
    )
    evaluated = (
        alt.Chart(named("eval"))
        .mark_line(strokeWidth=1.4, opacity=0.8, strokeDash=[3, 3])
        .encode(x=x, y=y, color=colour)
    )
    dots = (
        alt.Chart(named("dots"))
        .mark_point(filled=True, opacity=1)
        .encode(
            x=x,
            y=y,
            color=colour,
            size=alt.condition("datum.kind == 'eval'", alt.value(55), alt.value(18)),
            tooltip=[
                alt.Tooltip("name:N"),
                alt.Tooltip("step:Q"),
                alt.Tooltip("value:Q", format=".6~g"),
            ],
        )
    )
    drawn = {"train": trained, "eval": evaluated, "dots": dots}
    return alt.LayerChart(layer=[drawn[name] for name in layers])


def _label(value: str) -> str:
    """Return a Vega expression that writes a tick of a value."""
    if value == "seconds":
        return SECONDS_LABEL
    return (
        "abs(datum.value) < 0.001 && datum.value != 0"
        " ? format(datum.value, '.2~e') : format(datum.value, ',.4~g')"
    )


def shown_value(name: str, number: float) -> str:
    """Return a logged value for people.

    Args:
        name: of the value.
        number: the value; it need not be finite.
    """
    if not math.isfinite(number):
        return str(number)
    return format_seconds(number) if name == "seconds" else f"{number:.4g}"


def _sentence(value: str, lines: Sequence[Series]) -> str:
    parts = []
    for line in lines:
        if line.points and len(lines) <= _TOLD_UP_TO:
            (first, begin), (last, end) = line.points[0], line.points[-1]
            change = (
                f"{shown_value(value, begin)} at step {first}, "
                f"{shown_value(value, end)} at step {last}"
                if len(line.points) > 1
                else f"{shown_value(value, end)} at step {last}"
            )
            parts.append(f"{_who(line)}: {change}")
        if line.lost:
            more = f" and {len(line.lost) - 1} later" if len(line.lost) > 1 else ""
            parts.append(f"{_who(line)} was not finite at step {line.lost[0]}{more}")
    if len(lines) > _TOLD_UP_TO:
        parts.append("The table has the figures of each line")
    return "; ".join(parts) + "." if parts else "Nothing was logged."


def _who(line: Series) -> str:
    return line.name if line.name == line.kind else f"{line.name}, {line.kind}"


def _table(value: str, lines: Sequence[Series]) -> Html:
    """Return the values as a table, thinned where they are many."""
    steps = sorted({step for line in lines for step, _ in line.points})
    every = math.ceil(len(steps) / _MOST_ROWS) if steps else 1
    chosen = [step for i, step in enumerate(steps) if i % every == 0 or i == len(steps) - 1]
    by_line = [dict(line.points) for line in lines]
    rows = [
        [str(step), *(shown_value(value, d[step]) if step in d else "" for d in by_line)]
        for step in chosen
    ]
    rest = f", one of {every} logged steps" if every > 1 else ""
    heads = ["Step", *(_who(line) for line in lines)]
    return table(f"{value} by step{rest}", heads, rows, numbers=range(len(heads)))
