"""A figure of the page: charts, what they say in words, and the same as a table."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from shoestring.core.markup import Html, data_script, joined, tag
from shoestring.core.units import format_bytes

if TYPE_CHECKING:
    import altair as alt

# Each is at least 3:1 against the light page and against the dark one (WCAG 1.4.11), so that
# a chart need not know which of the two it is on.
BLUE: Final = "#4477cc"
ORANGE: Final = "#d9622b"
GREEN: Final = "#1f9278"
PURPLE: Final = "#8e6bd1"
OCHRE: Final = "#b07d1e"
PINK: Final = "#d1569a"
GREY: Final = "#868c95"

KIND_COLOURS: Final[dict[str, str]] = {
    "parameters": BLUE,
    "buffers": GREY,
    "optimizer state": PURPLE,
    "batch": OCHRE,
    "gradients": ORANGE,
    "saved activations": GREEN,
    "temporaries": PINK,
}
"""What bytes hold, from the bottom of a stack to its top: first what stays, then what moves."""

SECONDS_LABEL: Final = (
    "datum.value < 1 ? format(datum.value * 1000, ',.4~g') + ' ms'"
    " : format(datum.value, ',.4~g') + ' s'"
)
"""A Vega expression that writes a tick of an axis of seconds."""

_INK: Final = "currentColor"


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """An entry of a legend.

    Attributes:
        name: what is drawn so.
        colour: of its marks.
        opacity: of its marks.
    """

    name: str
    colour: str = _INK
    opacity: float = 1.0


@dataclasses.dataclass(frozen=True, slots=True)
class Plot:
    """One chart.

    Attributes:
        ident: its id, unique on the page.
        label: a few words above it; empty where the figure's title says it all.
        words: what it shows, for those who do not see it.
        spec: Vega-Lite, its data under ``datasets``.
    """

    ident: str
    label: str
    words: str
    spec: dict[str, object]


def plot(
    ident: str,
    chart: alt.LayerChart,
    data: dict[str, list[dict[str, object]]],
    *,
    words: str,
    label: str = "",
    height: int,
) -> Plot:
    """Return a chart that takes its width and its text's colour from the page.

    Args:
        ident: its id, unique on the page.
        chart: what is drawn, of data sets by name.
        data: the data sets.
        words: what it shows, for those who do not see it.
        label: a few words above it.
        height: of the plot in pixels.
    """
    shown = chart.properties(width="container", height=height, background="transparent")
    spec = shown.to_dict()
    # Added here, past Altair's check of every value against the schema, which takes seconds.
    spec["datasets"] = data
    spec["description"] = words
    spec["config"] = _CONFIG
    spec["padding"] = {"left": 0, "right": 3, "top": 5, "bottom": 2}
    return Plot(ident, label, words, spec)


_TEXT: Final = {"labelColor": _INK, "titleColor": _INK, "labelFontSize": 12, "titleFontSize": 12}
_CONFIG: Final[dict[str, object]] = {
    "font": "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif",
    "view": {"stroke": None},
    "axis": {
        **_TEXT,
        "titleFontWeight": "normal",
        "gridColor": _INK,
        "gridOpacity": 0.12,
        "domainColor": _INK,
        "domainOpacity": 0.4,
        "ticks": False,
        "labelPadding": 6,
        "titlePadding": 8,
    },
    "text": {"color": _INK, "fontSize": 12},
    "rule": {"color": _INK},
}


def figure(
    title: str,
    sentence: str,
    plots: Sequence[Plot],
    *,
    table: Html,
    legend: Sequence[Key] = (),
    more_legend: Sequence[Key] = (),
) -> Html:
    """Return a figure with its charts, legend and table.

    Args:
        title: what is drawn.
        sentence: what to see in it, in full sentences.
        plots: its charts, beside each other where there is room.
        table: the same figures.
        legend: in the order of the drawing.
        more_legend: of something else in the same charts.
    """
    parts = [
        tag("figcaption", tag("strong", title, cls="title"), " ", tag("span", sentence)),
        *(_legend(keys) for keys in (legend, more_legend) if keys),
        tag("div", *(_plot(one) for one in plots), cls="plots"),
        tag("details", tag("summary", f"Table: {title}"), table),
    ]
    return tag("figure", *parts)


def _plot(one: Plot) -> Html:
    # role=img: one sentence is read out instead of hundreds of marks; the table has them all.
    place = tag(
        "div",
        cls="plot",
        ident=one.ident,
        attributes={"role": "img", "aria-label": one.words, "data-spec": f"{one.ident}-spec"},
    )
    label = tag("p", one.label, cls="label") if one.label else Html("")
    return joined([tag("div", label, place), data_script(f"{one.ident}-spec", one.spec)])


def _legend(keys: Sequence[Key]) -> Html:
    return tag("ul", *(tag("li", _swatch(key), key.name) for key in keys), cls="legend")


def _swatch(key: Key) -> Html:
    return Html(
        '<svg width="12" height="12" viewBox="0 0 12 12" aria-hidden="true" focusable="false">'
        f'<rect width="12" height="12" rx="2" fill="{key.colour}" '
        f'fill-opacity="{key.opacity}"/></svg>'
    )


@dataclasses.dataclass(frozen=True, slots=True)
class ByteScale:
    """An axis of bytes with round ticks in binary units.

    Attributes:
        low: where it begins, in bytes.
        high: where it ends.
        ticks: in bytes.
        unit: bytes of the unit.
        name: of the unit, as in ``MiB``.
    """

    low: float
    high: float
    ticks: list[float]
    unit: int
    name: str

    @property
    def label(self) -> str:
        """A Vega expression that writes a tick."""
        return f"format(datum.value / {self.unit}, ',.6~g') + ' {self.name}'"


def byte_scale(low: float, high: float, *, count: int = 5) -> ByteScale:
    """Return an axis that holds two sizes.

    Args:
        low: the least size, in bytes; 0 for an axis that begins at nothing.
        high: the greatest, in bytes.
        count: about as many ticks.

    Example:
        >>> byte_scale(0, 5 * 2**20).ticks[1] / 2**20
        1.0
    """
    high = max(high, low + 1.0)
    power = min(max(int(math.log2(max(high, 1)) // 10), 0), 4)
    # One and a half GiB are drawn in GiB, 0.9 GiB in MiB; as `format_bytes` writes them.
    unit, name = 2 ** (10 * power), ["B", "KiB", "MiB", "GiB", "TiB"][power]
    rough = (high - low) / unit / count
    base = 10 ** math.floor(math.log10(rough))
    step = min((m * base for m in (1, 2, 5, 10) if m * base >= rough), default=10 * base)
    first = math.ceil(low / unit / step - 1e-9)
    last = math.floor(high / unit / step + 1e-9)
    ticks = [n * step * unit for n in range(first, last + 1)]
    return ByteScale(low, high, ticks, unit, name)


def named(name: str) -> alt.NamedData:
    """Return a reference to a data set.

    Args:
        name: of the data set.
    """
    import altair as alt

    return alt.NamedData(name=name)


def bytes_and_share(size: float, whole: float) -> str:
    """Return a size with its share, as in ``12.0 MiB (34%)``.

    Args:
        size: in bytes.
        whole: what it is a part of, in bytes.
    """
    return f"{format_bytes(size)} ({size / whole:.0%})" if whole > 0 else format_bytes(size)
