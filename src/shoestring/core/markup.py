"""HTML in small pieces: whatever is not markup already is escaped."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from typing import Final

COUNT_PAGE: Final = '<meta name="generator" content="shoestring count">'
REPORT_PAGE: Final = '<meta name="generator" content="shoestring report">'
"""Marks in a page's head: such a page may be replaced by a newer one."""

_BAR: Final = "display:inline-block;height:0.7em;background:#4477aa;width:{width:.0f}px"
_WIDEST_BAR: Final = 160
_CELL: Final = (
    "padding:2px 12px 2px 0;white-space:nowrap;font-weight:inherit;vertical-align:top;text-align:"
)
_INLINE: Final = {
    "table": "border-collapse:collapse;background:transparent",
    "caption": "text-align:left;font-weight:bold",
    "thead": "font-weight:bold",
    "marked": "font-weight:bold",
    "th": _CELL + "left",
    "td": _CELL + "left",
    "number": _CELL + "right",
}
"""Class or element -> its style where there is no page to give it one."""


class Html(str):
    """Text that is markup already, made by `tag` and `joined` only."""

    __slots__ = ()


def text(content: str) -> Html:
    """Return text as markup that shows it.

    Args:
        content: any text; markup is returned as it is.
    """
    return content if isinstance(content, Html) else Html(html.escape(content, quote=True))


def joined(parts: Sequence[str], separator: str = "") -> Html:
    """Return pieces as one, each escaped unless it is markup.

    Args:
        parts: texts and markup.
        separator: text between them.
    """
    return Html(text(separator).join(text(part) for part in parts))


def tag(
    name: str,
    *children: str,
    cls: str = "",
    ident: str = "",
    attributes: Mapping[str, str] | None = None,
) -> Html:
    """Return an element.

    Args:
        name: of the element, as in ``p``.
        *children: its texts and elements; texts are escaped.
        cls: its class.
        ident: its id.
        attributes: what else it has; values are escaped.

    Example:
        >>> tag("p", "a < b", cls="note")
        '<p class="note">a &lt; b</p>'
    """
    own = {"class": cls, "id": ident, **(attributes or {})}
    words = "".join(f' {key}="{html.escape(value)}"' for key, value in own.items() if value)
    # An empty attribute would be dropped above, so that callers need no conditions.
    return Html(f"<{name}{words}>{joined(children)}</{name}>")


def data_script(ident: str, value: object) -> Html:
    """Return JSON for the page's own script to read; nothing in it can end the element.

    Args:
        ident: id of the element.
        value: what JSON can hold.
    """
    body = json.dumps(value, allow_nan=False, separators=(",", ":"))
    # Inside JSON these characters stand in strings only, where the escapes mean the same.
    for character in "<>&":
        body = body.replace(character, f"\\u{ord(character):04x}")
    return Html(f'<script type="application/json" id="{html.escape(ident)}">{body}</script>')


def table(
    caption: str,
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    numbers: Sequence[int] = (),
    marked: Sequence[int] = (),
    cls: str = "",
    inline: bool = False,
) -> Html:
    """Return a table that scrolls on its own where it is too wide.

    Args:
        caption: what it shows.
        heads: of its columns.
        rows: their cells; the first of each is the row's head.
        numbers: columns that are aligned to the right.
        marked: rows that stand out.
        cls: a further class.
        inline: bring the style along, as a notebook needs it.
    """
    right, out = set(numbers), set(marked)

    def part(name: str, *children: str, cls: str = "", scope: str = "") -> Html:
        style = (_INLINE.get(cls) or _INLINE.get(name, "")) if inline else ""
        return tag(name, *children, cls=cls, attributes={"scope": scope, "style": style})

    def cell(name: str, content: str, column: int, scope: str = "") -> Html:
        return part(name, content, cls="number" if column in right else "", scope=scope)

    body = [
        part(
            "tr",
            cell("th", row[0], 0, "row"),
            *(cell("td", content, i + 1) for i, content in enumerate(row[1:])),
            cls="marked" if number in out else "",
        )
        for number, row in enumerate(rows)
    ]
    head = [cell("th", content, i, "col") for i, content in enumerate(heads)]
    inner = part(
        "table",
        part("caption", caption),
        part("thead", part("tr", *head)),
        part("tbody", *body),
        cls=cls,
    )
    reach = {"tabindex": "0", "role": "region", "aria-label": caption}
    if inline:
        reach["style"] = "overflow-x:auto;margin-bottom:1em"
    return tag("div", inner, cls="scroll", attributes=reach)


def bar(share: float) -> Html:
    """Return a bar for a notebook's table.

    Args:
        share: of the widest, from 0 to 1.
    """
    return tag("span", attributes={"style": _BAR.format(width=_WIDEST_BAR * share)})
