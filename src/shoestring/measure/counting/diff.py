"""``diff``: what changed between two counts."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from shoestring.core.units import format_bytes, format_count
from shoestring.measure.counting.counts import FIGURES, Count, Totals
from shoestring.measure.counting.lines import module_lines, module_patterns, printable

SCHEMA: Final = "shoestring/difference/1"

_NOTHING: Final = Totals()
_WIDTH: Final = 100
_MOST_LINES: Final = 12
_LEAST_LABEL: Final = 12


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """What one part cost before and costs after.

    Attributes:
        before: zeros where it was not there.
        after: zeros where it is gone.
    """

    before: Totals
    after: Totals

    @property
    def change(self) -> Totals:
        """After less before; negative where something was saved."""
        return Totals(*(getattr(self.after, n) - getattr(self.before, n) for n in FIGURES))

    def ratio(self, figure: str = "flops") -> float:
        """Return after over before.

        Args:
            figure: a field of `Totals`, or ``bytes``.

        Returns:
            The ratio; infinity where there was nothing before, 1 where there is nothing at all.
        """
        return _ratio(getattr(self.before, figure), getattr(self.after, figure))


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
    """What changed between two counts.

    Attributes:
        before: title of the first count.
        after: title of the second.
        total: everything together.
        phases: by phase.
        modules: by path, what is inside a module included; the empty path is everything.
        ops: by operator.
        figures: ``params``, ``activation_bytes`` and ``fused_bytes``, before and after.
        unknown_ops: calls of operators without a formula, before and after; what they compute
            is in no figure.
        shown: the modules as the table has them, like numbered ones as one.
    """

    before: str
    after: str
    total: Change
    phases: dict[str, Change]
    modules: dict[str, Change]
    ops: dict[str, Change]
    figures: dict[str, tuple[int, int]]
    unknown_ops: dict[str, tuple[int, int]]
    shown: dict[str, Change] = dataclasses.field(repr=False, compare=False)

    @property
    def appeared(self) -> dict[str, tuple[str, ...]]:
        """The ``modules`` and ``ops`` that only the second count has."""
        return {
            kind: tuple(name for name, part in parts.items() if not part.before.calls)
            for kind, parts in (("modules", self.modules), ("ops", self.ops))
        }

    @property
    def vanished(self) -> dict[str, tuple[str, ...]]:
        """The ``modules`` and ``ops`` that only the first count has."""
        return {
            kind: tuple(name for name, part in parts.items() if not part.after.calls)
            for kind, parts in (("modules", self.modules), ("ops", self.ops))
        }

    def table(self) -> str:
        """Return the difference as text for a terminal, without colour."""
        return _table(self)

    def __str__(self) -> str:
        return self.table()

    def to_json(self) -> str:
        """Return the difference as JSON text with a schema name; infinite ratios are null."""
        data = {
            "schema": SCHEMA,
            "before": self.before,
            "after": self.after,
            "total": _change_data(self.total),
            **{
                kind: {name: _change_data(part) for name, part in parts.items()}
                for kind, parts in (
                    ("phases", self.phases),
                    ("modules", self.modules),
                    ("ops", self.ops),
                )
            },
            "figures": {name: list(pair) for name, pair in self.figures.items()},
            "appeared": self.appeared,
            "vanished": self.vanished,
            "unknown_ops": {name: list(pair) for name, pair in self.unknown_ops.items()},
        }
        return json.dumps(data, indent=1, allow_nan=False)


def diff(before: Count, after: Count) -> Difference:
    """Say what changed between two counts: in all, by phase, by module and by operator.

    Args:
        before: of the code as it was.
        after: of the code as it is now.

    Returns:
        The difference, which can be printed.

    Example:
        >>> import torch
        >>> from shoestring.measure.counting.count import count
        >>> with count() as small:
        ...     a = torch.ones(2, 4) @ torch.ones(4, 3)
        >>> with count() as large:
        ...     a = torch.ones(6, 4) @ torch.ones(4, 3)
        >>> diff(small, large).total.ratio("macs")
        3.0
    """
    names = ("params", "activation_bytes", "fused_bytes")
    unknown = before.unknown_ops, after.unknown_ops
    return Difference(
        before=before.counted.title,
        after=after.counted.title,
        total=Change(before.total, after.total),
        phases=_changes(before.by_phase(), after.by_phase()),
        modules=_changes(before.by_module(), after.by_module()),
        ops=_changes(before.by_op(), after.by_op()),
        figures={name: (getattr(before, name), getattr(after, name)) for name in names},
        unknown_ops={
            name: (unknown[0].get(name, 0), unknown[1].get(name, 0))
            for name in dict.fromkeys([*unknown[0], *unknown[1]])
        },
        shown=_changes(*_folded(before, after)),
    )


def _folded(before: Count, after: Count) -> tuple[dict[str, Totals], dict[str, Totals]]:
    """Return the modules of both, like numbered ones as one where they are so in both."""
    patterns = module_patterns(before)
    if patterns != module_patterns(after):
        return before.by_module(), after.by_module()
    costs = [{line.path: line.cost for line in module_lines(c, None)} for c in (before, after)]
    # A module may stand alone in one of them and be its parent's only work in the other.
    return costs[0], costs[1]


def _changes(before: Mapping[str, Totals], after: Mapping[str, Totals]) -> dict[str, Change]:
    return {
        name: Change(before.get(name, _NOTHING), after.get(name, _NOTHING))
        for name in dict.fromkeys([*before, *after])
    }


def _ratio(before: float, after: float) -> float:
    if before:
        return after / before
    return math.inf if after else 1.0


def _change_data(part: Change) -> dict[str, object]:
    ratios = {name: part.ratio(name) for name in FIGURES}
    return {
        "before": dataclasses.asdict(part.before),
        "after": dataclasses.asdict(part.after),
        "change": dataclasses.asdict(part.change),
        "ratio": {name: r if math.isfinite(r) else None for name, r in ratios.items()},
    }


# --- as text ---------------------------------------------------------------------------------

_Columns = Sequence[tuple[str, str, Callable[[float], str]]]
_COLUMNS: Final[_Columns] = (
    ("FLOPs", "flops", format_count),
    ("element-wise", "elementwise_flops", format_count),
    ("bytes", "bytes", format_bytes),
)


def _table(difference: Difference) -> str:
    total, phases = difference.total, difference.phases
    modules = {path: part for path, part in difference.shown.items() if path}
    parts = [
        ("", {"total": total} | {k: p for k, p in phases.items() if p.before != p.after}, ""),
        ("module", *_largest(modules, total)),
        ("operator", *_largest(difference.ops, total)),
    ]
    cells = [[_cells(part) for part in changes.values()] for _, changes, _ in parts]
    every = [row for rows in cells for row in rows]
    heads = [head for head, _, _ in _COLUMNS]
    widths = [max(len(head), *(len(row[i]) for row in every)) for i, head in enumerate(heads)]
    room = _WIDTH - sum(width + 2 for width in widths)
    label = max(min(room, max(len(k) for _, part, _ in parts for k in part)), _LEAST_LABEL)

    def line(name: str, row: Sequence[str]) -> str:
        name = printable(name)
        start = name if len(name) <= label else f"…{name[1 - label :]}"
        placed = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        return "  ".join([start.ljust(label), *placed]).rstrip()

    lines = [
        f"before: {printable(difference.before)}",
        f"after:  {printable(difference.after)}",
    ]
    for (head, changes, left), rows in zip(parts, cells, strict=True):
        if changes or left:
            lines += ["", line(head, heads), *map(line, changes, rows), *([left] if left else [])]
    return "\n".join([*lines, "", *_figures(difference), *_warnings(difference)])


def _largest(parts: Mapping[str, Change], total: Change) -> tuple[dict[str, Change], str]:
    """Return the parts that changed most, and a sentence about the others."""
    changed = [name for name, part in parts.items() if part.before != part.after]
    whole = Totals(*(max(getattr(total.before, n), getattr(total.after, n)) for n in FIGURES))

    def weight(name: str) -> float:
        sizes = [(abs(getattr(parts[name].change, n)), getattr(whole, n)) for n in FIGURES]
        return max(size / most if most else 0.0 for size, most in sizes)

    shown = sorted(changed, key=lambda name: -weight(name))[:_MOST_LINES]
    less, same = len(changed) - len(shown), len(parts) - len(changed)
    words = [f"{less} more changed less"] * bool(less) + [f"{same} are as before"] * bool(same)
    return {name: parts[name] for name in parts if name in shown}, ", ".join(words)


def _cells(part: Change) -> list[str]:
    return [
        _change(getattr(part.before, figure), getattr(part.after, figure), write)
        for _, figure, write in _COLUMNS
    ]


def _change(before: float, after: float, write: Callable[[float], str]) -> str:
    if before == after:
        return write(after) if after else "-"
    if not before:
        return f"new: {write(after)}"
    if not after:
        return f"{write(before)}, gone"
    if write(before) == write(after):
        return f"{write(after)} {'+' if after > before else '-'} {write(abs(after - before))}"
    return f"{write(before)} -> {write(after)}, x{after / before:.3g}"


def _figures(difference: Difference) -> list[str]:
    writes = {"params": ("parameters", format_count)}
    lines = []
    for name, (before, after) in difference.figures.items():
        label, write = writes.get(name, (name.replace("_", " "), format_bytes))
        lines.append(f"{label}: {_change(before, after, write)}")
    return lines


def _warnings(difference: Difference) -> list[str]:
    if not difference.unknown_ops:
        return []
    named = ", ".join(
        f"{printable(op)} ({a:,} -> {b:,})" for op, (a, b) in difference.unknown_ops.items()
    )
    return ["", f"NOT COUNTED: operators without a formula (calls before -> after): {named}."]
