"""A front of schedules: what a step's peak can be, and what each costs."""

from __future__ import annotations

import csv
import dataclasses
import io
from typing import Final

from shoestring.activations.remat.answer import relative_gap
from shoestring.activations.remat.captured import Schedule
from shoestring.core.markup import table
from shoestring.core.units import format_bytes

_HEADS: Final = ("peak", "of plain", "computed again", "at least", "found by")
_NUMBERS: Final = (0, 1, 2, 3)
_CSV: Final = ("peak_bytes", "share_of_plain", "seconds", "overhead", "bound_seconds", "solver")


@dataclasses.dataclass(frozen=True)
class Front:
    """Schedules of one step, none of them both smaller and faster than another.

    Attributes:
        schedules: by falling peak; the first takes as long as the plain step.
    """

    schedules: tuple[Schedule, ...]

    @property
    def least(self) -> int:
        """The least peak that was found, in bytes."""
        return self.schedules[-1].peak

    def table(self) -> str:
        """Return the schedules as text: peak, what is computed again, and its lower bound."""
        rows = [_HEADS, *self._rows()]
        widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADS))]
        lines = []
        for row in rows:
            cells = zip(row, widths, strict=True)
            numbers = [
                text.rjust(w) if i in _NUMBERS else text for i, (text, w) in enumerate(cells)
            ]
            lines.append("  ".join(numbers).rstrip())
        return "\n".join(lines)

    def to_csv(self) -> str:
        """Return the schedules as CSV: bytes, seconds and shares, not rounded."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_CSV)
        for schedule in self.schedules:
            writer.writerow(
                [
                    schedule.peak,
                    schedule.peak / schedule.plain.peak,
                    schedule.answer.seconds,
                    schedule.overhead,
                    schedule.lower_bound,
                    schedule.answer.solver,
                ]
            )
        return text.getvalue()

    def _rows(self) -> list[tuple[str, ...]]:
        return [
            (
                format_bytes(schedule.peak),
                f"{schedule.peak / schedule.plain.peak:.0%}",
                f"{schedule.overhead:.1%}",
                f"{relative_gap(schedule.lower_bound, schedule.graph.seconds):.1%}",
                schedule.answer.solver,
            )
            for schedule in self.schedules
        ]

    def _repr_html_(self) -> str:
        heads = [head.capitalize() for head in _HEADS]
        caption = "Peak of forward and backward, and share of the step that is computed again"
        return table(caption, heads, self._rows(), numbers=_NUMBERS, inline=True)
