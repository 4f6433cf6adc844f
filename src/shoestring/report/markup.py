"""HTML in small pieces: whatever is not markup already is escaped."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence


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
) -> Html:
    """Return a table that scrolls on its own where it is too wide.

    Args:
        caption: what it shows.
        heads: of its columns.
        rows: their cells; the first of each is the row's head.
        numbers: columns that are aligned to the right.
        marked: rows that stand out.
        cls: a further class.
    """
    right = set(numbers)

    def cell(name: str, content: str, column: int, scope: str = "") -> Html:
        more = {"scope": scope} if scope else None
        return tag(name, content, cls="number" if column in right else "", attributes=more)

    head = [cell("th", content, i, "col") for i, content in enumerate(heads)]
    body = [
        tag(
            "tr",
            cell("th", row[0], 0, "row"),
            *(cell("td", content, i + 1) for i, content in enumerate(row[1:])),
            cls="marked" if number in set(marked) else "",
        )
        for number, row in enumerate(rows)
    ]
    inner = tag(
        "table",
        tag("caption", caption),
        tag("thead", tag("tr", *head)),
        tag("tbody", *body),
        cls=cls,
    )
    reach = {"tabindex": "0", "role": "region", "aria-label": caption}
    return tag("div", inner, cls="scroll", attributes=reach)
