"""Tables as HTML for notebooks: plain, readable on light and dark."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Final

_CELL: Final = "padding:2px 12px 2px 0;text-align:{align};white-space:nowrap"
_BAR: Final = "display:inline-block;height:0.7em;background:#4477aa;width:{width:.0f}px"
_WIDEST: Final = 160


def table(
    caption: str, head: Sequence[str], rows: Sequence[Sequence[str]], *, marked: int | None = None
) -> str:
    """Return an HTML table; the first column is text, the others are figures.

    Args:
        caption: above the table.
        head: of the columns.
        rows: cells, as text or as what `bar` made.
        marked: the row in bold, or None.
    """
    lines = [
        '<table style="border-collapse:collapse;background:transparent">',
        f'<caption style="text-align:left;font-weight:bold">{escape(caption)}</caption>',
        f"<thead><tr>{_cells('th', head)}</tr></thead>",
        "<tbody>",
    ]
    for number, row in enumerate(rows):
        weight = ' style="font-weight:bold"' if number == marked else ""
        lines.append(f"<tr{weight}>{_cells('td', row)}</tr>")
    return "\n".join([*lines, "</tbody></table>"])


class Bar(str):
    """A bar: markup, which is not escaped again."""

    __slots__ = ()

    @classmethod
    def of(cls, share: float) -> Bar:
        """Return a bar of a share of the widest.

        Args:
            share: from 0 to 1.
        """
        return cls(f'<span style="{_BAR.format(width=_WIDEST * share)}"></span>')


def paragraph(text: str) -> str:
    """Return a paragraph.

    Args:
        text: escaped here.
    """
    return f"<p>{escape(text)}</p>"


def escape(text: str) -> str:
    """Return text as HTML shows it.

    Args:
        text: from anywhere.
    """
    return html.escape(text)


def _cells(tag: str, texts: Sequence[str]) -> str:
    return "".join(_cell(tag, text, column) for column, text in enumerate(texts))


def _cell(tag: str, text: str, column: int) -> str:
    align = "left" if column == 0 or isinstance(text, Bar) else "right"
    inside = text if isinstance(text, Bar) else escape(text)
    scope = ' scope="col"' if tag == "th" else ""
    return f'<{tag}{scope} style="{_CELL.format(align=align)}">{inside}</{tag}>'
