"""Plans as text for a terminal, at most 100 columns wide."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from shoestring.core.markup import joined, table, tag
from shoestring.core.units import format_bytes, format_seconds
from shoestring.planner.figures import Row

if TYPE_CHECKING:
    from shoestring.planner.plan import Plan

_WIDTH: Final = 100
_LABEL: Final = (24, 42)
_LEFT: Final = ("", "gradients")
_PILED: Final = "... + "


def plan_table(plan: Plan) -> str:
    """Return a plan as text, without colour.

    Args:
        plan: the plan.
    """
    lines = [*_heading(plan), "", *rows_table(plan.rows), ""]
    if plan.steps:
        saved = 1 - plan.predicted.footprint / max(plan.plain.footprint, 1)
        slower = plan.predicted.seconds / max(plan.plain.seconds, 1e-12) - 1
        fits = plan.budget is None or plan.predicted.footprint <= plan.budget
        what = " + ".join(t.describe() for t in plan.steps)
        lines += _wrap("plan: " if fits else "least: ", what)
        lines += _wrap(
            "      " if fits else "       ",
            f"{format_bytes(plan.plain.footprint)} -> "
            f"{format_bytes(plan.predicted.footprint)} ({saved:.0%} less), "
            f"step time {slower:+.0%} (estimated)",
        )
    else:
        fits = plan.budget is None or plan.plain.footprint <= plan.budget
        lines.append(
            "plan: the plain step; nothing needs to change"
            if fits
            else "least: the plain step; nothing that is allowed makes it smaller"
        )
    for name, reason in plan.refused:
        lines += _wrap("not used: ", f"{name}: {reason}")
    if any(row.label.startswith(_PILED) for row in plan.rows):
        lines += _wrap("...: ", "with the exact changes of forward and backward above")
    if plan.predicted.footprint != plan.predicted.peak:
        lines += _wrap("peak: ", "what is allocated, with the card's context and reserve")
    if not plan.measured_on_machine:
        lines += _wrap(
            "not yet measured on CUDA: ", "predictions for this machine are not checked there"
        )
    return "\n".join(lines)


def _heading(plan: Plan) -> list[str]:
    optimizer = plan.optimizer_path.rpartition(".")[2] or "forward and backward"
    budget = "no memory limit" if plan.budget is None else f"budget {format_bytes(plan.budget)}"
    return [
        *_wrap("", f"{plan.model}, {optimizer}, on {plan.machine}: {budget}"),
        *_wrap("batch: ", plan.batch),
    ]


def rows_table(rows: Sequence[Row]) -> list[str]:
    """Return rows as aligned lines with a header; ``>`` marks the plan.

    Args:
        rows: of a plan.
    """
    head, body = _cells(rows)
    return _aligned(head, body, [row.planned for row in rows])


def _cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    with_batch = any(row.largest_batch is not None for row in rows)
    head = ["", "peak", "step time", "gradients", "fits"] + ["largest batch"] * with_batch
    body = []
    for row in rows:
        cells = [
            row.label,
            format_bytes(row.figures.footprint),
            format_seconds(row.figures.seconds),
            row.fidelity,
            "yes" if row.fits else "no",
        ]
        if with_batch:
            cells.append("-" if row.largest_batch is None else str(row.largest_batch))
        body.append(cells)
    return head, body


def plan_html(plan: Plan) -> str:
    """Return a plan as HTML for a notebook; the plan's own row is in bold.

    Args:
        plan: the plan.
    """
    head, body = _cells(plan.rows)
    shown = table(
        " ".join(_heading(plan)),
        head,
        body,
        numbers=range(1, len(head)),
        marked=[i for i, row in enumerate(plan.rows) if row.planned],
        inline=True,
    )
    notes = [tag("p", f"not used: {name}: {reason}") for name, reason in plan.refused]
    return joined([shown, *notes])


def matrix(plans: Sequence[Plan]) -> str:
    """Return several budgets for one step as a matrix: rows are ways, columns budgets.

    Args:
        plans: of the same step, one for each budget.
    """
    labels: dict[str, Row] = {}
    for plan in plans:
        for row in plan.rows:
            labels.setdefault(row.label, row)
    head = ["", "peak", "step time", "gradients"] + [
        format_bytes(plan.budget) if plan.budget is not None else "-" for plan in plans
    ]
    body = []
    for label, row in labels.items():
        figures = row.figures
        cells = [
            label,
            format_bytes(figures.footprint),
            format_seconds(figures.seconds),
            row.fidelity,
        ]
        body.append(cells + [_cell(plan, row) for plan in plans])
    first = plans[0]
    optimizer = first.optimizer_path.rpartition(".")[2] or "forward and backward"
    lines = [
        *_wrap("", f"{first.model}, {optimizer}, on {first.machine}"),
        *_wrap("batch: ", first.batch),
        "",
        *_aligned(head, body, [False] * len(body)),
        "",
    ]
    lines += _wrap("", _legend(plans))
    if not first.measured_on_machine:
        lines += _wrap(
            "not yet measured on CUDA: ", "predictions for this machine are not checked there"
        )
    return "\n".join(lines)


def _cell(plan: Plan, row: Row) -> str:
    """Return what a row is for a budget, with its largest batch where that was looked for."""
    own = next((other for other in plan.rows if other.label == row.label), None)
    fits = plan.budget is None or row.figures.footprint <= plan.budget
    word = "plan" if fits and own is not None and own.planned else "fits" if fits else "-"
    largest = None if own is None else own.largest_batch
    return word if largest is None else f"{word} {largest}" if fits else f"({largest})"


def _legend(plans: Sequence[Plan]) -> str:
    text = "plan: chosen for this budget; fits: would do; -: does not fit."
    if any(row.largest_batch is not None for plan in plans for row in plan.rows):
        text += " Numbers: the largest batch that fits, in brackets where this batch does not."
    return text


def _aligned(
    head: Sequence[str], body: Sequence[Sequence[str]], marked: Sequence[bool]
) -> list[str]:
    """Return a table as lines; long labels go over several."""
    widths = [max(len(line[i]) for line in [head, *body]) for i in range(1, len(head))]
    room = _WIDTH - 2 - sum(width + 2 for width in widths)
    split = [_label(cells[0], min(max(room, _LABEL[0]), _LABEL[1])) for cells in body]
    width = max([len(part) for parts in split for part in parts], default=0) + 2

    def line(label: str, cells: Sequence[str]) -> str:
        placed = [
            cell.ljust(w) if name in _LEFT else cell.rjust(w)
            for name, cell, w in zip(head[1:], cells, widths, strict=True)
        ]
        return "  ".join([label.ljust(width), *placed]).rstrip()

    lines = [line("", head[1:])]
    for parts, cells, mark in zip(split, body, marked, strict=True):
        lines.append(line(("> " if mark else "  ") + parts[0], cells[1:]))
        lines += ["  " + part for part in parts[1:]]
    return lines


def _label(text: str, width: int) -> list[str]:
    """Return a label in pieces that fit their column, cut before a ``+`` where possible."""
    lines: list[str] = []
    for part in text.split(" + "):
        joined = f"{lines[-1]} + {part}" if lines else part
        if len(joined) <= width:
            lines[-1:] = [joined]
        else:
            more = f"  + {part}" if lines else part
            lines += textwrap.wrap(more, width, subsequent_indent="    ", break_on_hyphens=False)
    return lines


def _wrap(head: str, text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=head, subsequent_indent=" " * len(head)) or [
        head.rstrip()
    ]
