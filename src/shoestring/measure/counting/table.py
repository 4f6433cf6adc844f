"""A count as a table for a terminal: a tree of modules, phases, operators, and what they sum to."""

from __future__ import annotations

import dataclasses
import io
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from shoestring.core.errors import InputError
from shoestring.core.machine import Machine
from shoestring.core.units import format_bytes, format_count, format_seconds
from shoestring.measure.counting.counts import Count
from shoestring.measure.counting.lines import (
    Line,
    guides,
    module_lines,
    op_lines,
    phase_lines,
    printable,
)

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from shoestring.measure.timing.roofline import Roofline

By: TypeAlias = Literal["module", "phase", "op"]

WIDTH: Final = 100
_LEAST_WIDTH: Final = 40
MOST_OPS: Final = 8
_WIDEST_BAR: Final = 12
_LEAST_BAR: Final = 3
_LEAST_LABEL: Final = 16
_GAP: Final = 2
_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"
_DROPPED: Final = ("calls", "MACs", "element-wise")
"""Columns that a narrow terminal does without, the first one first."""
_HEADS: Final[dict[By, str]] = {"module": "module", "phase": "phase", "op": "operator"}


@dataclasses.dataclass(frozen=True, slots=True)
class Section:
    """Lines of one kind.

    Attributes:
        by: what they are.
        lines: the lines, of modules in the order of a tree.
    """

    by: By
    lines: list[Line]


def sections(
    count: Count, depth: int | None, times: Roofline | None, by: By | None = None
) -> list[Section]:
    """Return what a table of a count shows.

    Args:
        count: what was counted.
        depth: of the modules.
        times: on a machine, or None.
        by: shows all lines of one kind alone; a summary of all kinds by default.

    Raises:
        InputError: the depth is negative.
    """
    if depth is not None and depth < 0:
        raise InputError(f"a depth of {depth} shows nothing.", hint="use 0 for the whole alone.")
    most = None if by == "op" else MOST_OPS
    modules, phases, ops = (
        (times.by_module(), times.by_phase(), times.by_op()) if times is not None else (None,) * 3
    )
    makes: dict[By, Callable[[], list[Line]]] = {
        "module": lambda: module_lines(count, depth, modules),
        "phase": lambda: phase_lines(count, phases),
        "op": lambda: op_lines(count, most, ops),
    }
    return [Section(kind, make()) for kind, make in makes.items() if by in (None, kind)]


def times_on(count: Count, machine: Machine | str | None) -> Roofline | None:
    """Return the times on a machine, or None without one.

    Args:
        count: what was counted.
        machine: a machine's sheet or its name, or None.

    Raises:
        InputError: there is no such machine.
    """
    return None if machine is None else count.roofline(machine)


def summary(count: Count, times: Roofline | None = None) -> list[tuple[str, str]]:
    """Return the figures of a count that belong to no line, each with its name.

    Args:
        count: what was counted.
        times: on a machine, or None.
    """
    total, kept = count.total, count.activation_bytes
    found = [
        ("parameters", f"{count.params:,}"),
        *([("activations", f"{format_bytes(kept)} alive when backward begins")] if kept else []),
        (
            "traffic",
            f"{format_bytes(total.bytes)} unfused, at least {format_bytes(count.fused_bytes)} "
            "if all were one kernel",
        ),
        ("intensity", f"{count.intensity:.3g} FLOP a byte, unfused"),
    ]
    if times is not None:
        bound = times.bound
        where = times.machine.title or times.machine.name
        found.append(
            (
                "time",
                f"{format_seconds(times.seconds)} on {where} (estimated), bound by compute "
                f"{bound.compute:.0%}, by memory {bound.memory:.0%}, by the cost of operations "
                f"{bound.cost:.0%}",
            )
        )
    return found


def warning(count: Count) -> str:
    """Return what is in no figure, in a sentence or two; empty where nothing is missing.

    Args:
        count: what was counted.
    """
    unknown = count.unknown_ops
    if not unknown:
        return ""
    most = sorted(unknown.items(), key=lambda item: (-item[1], item[0]))
    named = ", ".join(f"{printable(op)} ({calls:,} call{'s' * (calls != 1)})" for op, calls in most)
    are = "operator has" if len(most) == 1 else "operators have"
    return (
        f"NOT COUNTED: {len(most)} {are} no formula, and what is computed there is in no figure "
        f"of FLOPs or MACs: {named}. Give one with count(formulas={{op: f}})."
    )


def count_table(
    count: Count,
    depth: int | None = 2,
    machine: Machine | str | None = None,
    *,
    by: By | None = None,
    width: int | None = None,
) -> str:
    """Return a count as text without colour.

    Args:
        count: what was counted.
        depth: of the modules; None for all.
        machine: whose times are estimated; None for no times.
        by: all lines of one kind alone.
        width: in columns; the terminal's by default, or 100 where there is none.

    Raises:
        InputError: the depth is negative, or there is no such machine.
    """
    from rich.console import Console

    columns = max(width or _columns(), _LEAST_WIDTH)
    out = io.StringIO()
    console = Console(
        file=out, width=columns, color_system=None, force_terminal=False, legacy_windows=False
    )
    console.print(count_view(count, depth, machine, by=by, width=columns))
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip().splitlines())


def print_count(
    count: Count,
    depth: int | None = 2,
    machine: Machine | str | None = None,
    *,
    by: By | None = None,
) -> None:
    """Print a count, with colour on a terminal that has it and unless ``NO_COLOR`` is set.

    Args:
        count: what was counted.
        depth: of the modules; None for all.
        machine: whose times are estimated; None for no times.
        by: all lines of one kind alone.
    """
    if not sys.stdout.isatty():
        sys.stdout.write(count_table(count, depth, machine, by=by) + "\n")
        return
    from rich.console import Console

    columns = max(_columns(), _LEAST_WIDTH)
    Console(file=sys.stdout, width=columns).print(
        count_view(count, depth, machine, by=by, width=columns)
    )


def _columns() -> int:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDTH


def count_view(
    count: Count,
    depth: int | None = 2,
    machine: Machine | str | None = None,
    *,
    by: By | None = None,
    width: int = WIDTH,
) -> RenderableType:
    """Return a count as something that rich can print.

    Args:
        count: what was counted.
        depth: of the modules; None for all.
        machine: whose times are estimated; None for no times.
        by: all lines of one kind alone.
        width: in columns.

    Raises:
        InputError: the depth is negative, or there is no such machine.
    """
    from rich.console import Group
    from rich.text import Text

    times = times_on(count, machine)
    whole = Line("", "total", count.total, seconds=None if times is None else times.seconds)
    figures = summary(count, times)
    names = max(len(name) for name, _ in figures) + _GAP
    wrapped = [
        Text(("\n" + " " * names).join(textwrap.wrap(words, max(width - names, 1))))
        for _, words in figures
    ]
    shown = [
        Text(name.ljust(names)) + words for (name, _), words in zip(figures, wrapped, strict=True)
    ]
    missing = warning(count)
    last = [Text(""), Text(missing, style="bold red")] if missing else []
    return Group(
        Text(printable(count.counted.title), style="bold", overflow="fold"),
        Text(""),
        _grid(sections(count, depth, times, by), whole, width),
        Text(""),
        *shown,
        *last,
    )


# --- columns ---------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class _Column:
    """A column of figures.

    Attributes:
        head: its name.
        value: of a line.
        write: makes text of it.
        barred: whether bars show the shares.
    """

    head: str
    value: Callable[[Line], float]
    write: Callable[[float], str]
    barred: bool = False


def _written(write: Callable[[float], str]) -> Callable[[float], str]:
    return lambda value: write(value) if value else "-"


_COLUMNS: Final = (
    _Column("calls", lambda line: line.cost.calls, _written(format_count)),
    _Column("FLOPs", lambda line: line.cost.flops, _written(format_count), barred=True),
    _Column("MACs", lambda line: line.cost.macs, _written(format_count)),
    _Column("element-wise", lambda line: line.cost.elementwise_flops, _written(format_count)),
    _Column("bytes", lambda line: line.cost.bytes, _written(format_bytes), barred=True),
    _Column("time", lambda line: line.seconds or 0.0, _written(format_seconds), barred=True),
)


def _grid(parts: Sequence[Section], whole: Line, width: int) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    lines = [line for part in parts for line in part.lines]
    columns = [c for c in _COLUMNS if whole.seconds is not None or c.head != "time"]
    label = max((_label_width(part) for part in parts), default=_LEAST_LABEL)
    columns, bar, label = _fitting(columns, lines, width, label)
    sizes = [_size(c, lines) for c in columns]
    grid = Table(box=None, show_header=False, pad_edge=False, padding=(0, _GAP, 0, 0))
    grid.add_column(no_wrap=True, overflow="ellipsis", width=label)
    for column, size in zip(columns, sizes, strict=True):
        grid.add_column(no_wrap=True, width=size + (bar + 1) * (column.barred and bar > 0))
    for number, part in enumerate(parts):
        if number:
            grid.add_row()
        heads = [Text(c.head.rjust(n), style="dim") for c, n in zip(columns, sizes, strict=True)]
        grid.add_row(Text(_HEADS[part.by], style="dim"), *heads)
        for line, stem in zip(part.lines, guides(part.lines), strict=True):
            cells = [
                _cell(c, line, size, c.value(whole), bar)
                for c, size in zip(columns, sizes, strict=True)
            ]
            name = Text(stem, style="dim") + Text(line.name, style="bold" if not line.path else "")
            grid.add_row(name, *cells)
    return grid


def _label_width(part: Section) -> int:
    from rich.cells import cell_len

    shown = [stem + line.name for line, stem in zip(part.lines, guides(part.lines), strict=True)]
    return max(map(cell_len, [_HEADS[part.by], *shown]))


def _size(column: _Column, lines: Sequence[Line]) -> int:
    return max(len(column.head), *(len(column.write(column.value(line))) for line in lines))


def _fitting(
    columns: Sequence[_Column], lines: Sequence[Line], width: int, label: int
) -> tuple[list[_Column], int, int]:
    """Return the columns that there is room for, and the widths of bars and of labels.

    Long labels lose their ends first, then columns go, and at last the bars.
    """
    kept = list(columns)
    room = 0
    for dropped in (None, *_DROPPED):
        kept = [c for c in kept if c.head != dropped]
        bars = sum(c.barred for c in kept)
        room = width - sum(_size(c, lines) + _GAP for c in kept)
        bar = min((room - label) // bars - 1, _WIDEST_BAR)
        if bar >= _LEAST_BAR:
            return kept, bar, label
        left = room - bars * (_LEAST_BAR + 1)
        if left >= min(label, 2 * _LEAST_LABEL):
            return kept, _LEAST_BAR, left
    return kept, 0, max(min(label, room), _LEAST_LABEL)


def _cell(column: _Column, line: Line, size: int, whole: float, bar: int) -> Text:
    from rich.text import Text

    value = column.value(line)
    text = Text(column.write(value).rjust(size))
    if column.barred and bar:
        text.append(" ")
        text.append(drawn(value / whole if whole else 0.0, bar), style="cyan")
    return text


def drawn(share: float, width: int) -> str:
    """Return a bar in eighths of a character; what is not nothing is seen.

    Args:
        share: of the whole, from 0 to 1.
        width: of the whole, in characters.

    Example:
        >>> drawn(0.5, 5)
        '██▌  '
    """
    eighths = round(8 * width * min(max(share, 0.0), 1.0))
    if share > 0:
        eighths = max(eighths, 1)
    full, part = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[part] if part else "")).ljust(width)
