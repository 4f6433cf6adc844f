"""A count as HTML: tables with bars, for a page of its own, a notebook or a report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from shoestring.core.machine import Machine
from shoestring.core.markup import COUNT_PAGE, Html, joined, table, tag, text
from shoestring.core.units import format_bytes, format_count, format_seconds
from shoestring.measure.counting.counts import Count
from shoestring.measure.counting.lines import Line
from shoestring.measure.counting.table import By, Section, sections, summary, times_on, warning
from shoestring.measure.timing.roofline import Roofline

_CAPTIONS: Final[dict[By, str]] = {
    "module": "By module, what is inside it included",
    "phase": "By phase",
    "op": "By operator, those that take the most first",
}
_HEADS: Final[dict[By, str]] = {"module": "Module", "phase": "Phase", "op": "Operator"}
_INDENT: Final = 1.1
_BAR: Final = (
    "display:block;height:0.3em;margin-top:0.2em;border-radius:1px;background:#4477cc;"
    "margin-left:auto;width:{width:.2f}%"
)
"""On light and dark alike it is at least 3:1 against the page."""
_LOUD: Final = "padding:0.6em 0.9em;border:2px solid #d9622b;border-radius:6px;font-weight:600"


def count_parts(
    count: Count,
    depth: int | None = 2,
    machine: Machine | str | None = None,
    *,
    inline: bool = False,
) -> list[Html]:
    """Return the tables of a count as markup.

    Args:
        count: what was counted.
        depth: of the modules; None for all.
        machine: whose times are estimated; None for no times.
        inline: bring the style along, as a notebook needs it.

    Returns:
        What is in no figure, if anything; then the tables.

    Raises:
        InputError: the depth is negative, or there is no such machine.
    """
    times = times_on(count, machine)
    missing = warning(count)
    loud = [tag("p", missing, cls="loud", attributes={"style": _LOUD})] if missing else []
    figures = table(
        "What was counted",
        ["Figure", "Value"],
        [[name[:1].upper() + name[1:], words] for name, words in _figures(count, times)],
        cls="words",
        inline=inline,
    )
    parts = sections(count, depth, times)
    whole = parts[0].lines[0]
    made = [_section(part, whole, inline) for part in parts]
    # Phases and operators first: they are short, and the tree of modules may be long.
    by_module, *rest = made
    return [*loud, figures, *rest, by_module]


def _figures(count: Count, times: Roofline | None) -> list[tuple[str, str]]:
    return [
        ("FLOPs", f"{format_count(count.flops)} of contractions and algorithms"),
        ("MACs", f"{format_count(count.macs)} multiply-adds of contractions"),
        ("element-wise", f"{format_count(count.elementwise_flops)} scalar operations"),
        *summary(count, times),
    ]


def _section(part: Section, whole: Line, inline: bool) -> Html:
    columns = [c for c in _COLUMNS if whole.seconds is not None or c[0] != "Time"]
    rows = [
        [_label(line, part.by), *(_cell(line, column, whole) for column in columns)]
        for line in part.lines
    ]
    return table(
        _CAPTIONS[part.by],
        [_HEADS[part.by], *(head for head, _, _, _ in columns)],
        rows,
        numbers=range(1, len(columns) + 1),
        marked=[0] if part.by == "module" else (),
        cls="counts",
        inline=inline,
    )


_Shown = tuple[str, Callable[[Line], float], Callable[[float], str], bool]
_COLUMNS: Final[Sequence[_Shown]] = (
    ("FLOPs", lambda line: line.cost.flops, format_count, True),
    ("Bytes", lambda line: line.cost.bytes, format_bytes, True),
    ("Time", lambda line: line.seconds or 0.0, format_seconds, True),
    ("MACs", lambda line: line.cost.macs, format_count, False),
    ("Element-wise", lambda line: line.cost.elementwise_flops, format_count, False),
    ("Calls", lambda line: line.cost.calls, format_count, False),
)


def _label(line: Line, by: By) -> Html:
    if by != "module":
        return text(line.name)
    style = f"padding-left:{_INDENT * line.level:.1f}em"
    about = {"style": style, "title": line.path} if line.path else {"style": style}
    return tag("span", line.name, attributes=about)


def _cell(line: Line, column: _Shown, whole: Line) -> Html:
    _, value, write, barred = column
    amount = value(line)
    shown = text(write(amount) if amount else "-")
    if not barred or not amount:
        return shown
    share = amount / (value(whole) or amount)
    bar = tag("span", attributes={"style": _BAR.format(width=100 * min(share, 1.0))})
    return joined([shown, bar])


# --- a page of its own -----------------------------------------------------------------------


def count_html(count: Count, depth: int | None = 2, machine: Machine | str | None = None) -> str:
    """Return a count as an HTML page that needs nothing else.

    Args:
        count: what was counted.
        depth: of the modules; None for all.
        machine: whose times are estimated; None for no times.

    Raises:
        InputError: the depth is negative, or there is no such machine.
    """
    title = count.counted.title
    head = joined(
        [
            Html('<meta charset="utf-8">'),
            Html(COUNT_PAGE),
            Html(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
            Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
            Html('<meta name="color-scheme" content="light dark">'),
            tag("title", f"Count of {title}"),
            tag("style", Html(_STYLE)),
        ]
    )
    main = tag("main", tag("h1", title), *count_parts(count, depth, machine))
    return f'<!doctype html>\n<html lang="en">\n<head>{head}</head>\n<body>{main}</body>\n</html>\n'


def count_fragment(count: Count) -> str:
    """Return a count for a notebook.

    Args:
        count: what was counted.
    """
    title = tag("p", tag("strong", count.counted.title))
    return joined([title, *count_parts(count, inline=True)])


_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE: Final = """
:root { color-scheme: light dark; --paper: #fcfcfb; --ink: #1c2024; --soft: #565d66;
  --line: #dfe2e6; --mark: #eef3fb; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14171b; --ink: #e6e8ea; --soft: #a3abb5; --line: #323943; --mark: #202a3a; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 64rem; padding: 2rem clamp(1rem, 4vw, 2.5rem) 3rem;
  background: var(--paper); color: var(--ink); overflow-wrap: anywhere;
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
h1 { margin: 0 0 1.5rem; font-size: clamp(1.1rem, 0.9rem + 1.5vw, 1.4rem); line-height: 1.25; }
.scroll { overflow-x: auto; margin: 0 0 2rem; }
table { border-collapse: collapse; width: 100%; font-size: 0.925rem; overflow-wrap: normal; }
caption { padding: 0 0 0.5rem; color: var(--soft); font-size: 0.875rem; text-align: left; }
th, td { padding: 0.4rem 1.4rem 0.4rem 0; border-bottom: 1px solid var(--line);
  text-align: left; vertical-align: top; }
thead th { color: var(--soft); font-weight: 550; vertical-align: bottom; }
tbody th { font-weight: 450; min-width: 9rem; }
.counts tbody th { white-space: nowrap; }
th:last-child, td:last-child { padding-right: 0; }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums;
  min-width: 5.5rem; }
.marked > * { background: var(--mark); }
:focus-visible { outline: 3px solid #4477cc; outline-offset: 2px; }
"""
