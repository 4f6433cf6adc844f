"""What was run, on what, and how predicted and measured compare: a table, a column a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from shoestring.core.markup import Html, joined, table, tag
from shoestring.core.units import format_bytes, format_seconds
from shoestring.report.curves import shown_value
from shoestring.report.reading import Seen

_UNKNOWN: Final = "not known"


def summary_table(runs: Sequence[Seen]) -> Html:
    """Return the summaries of runs as one table.

    Args:
        runs: a column each.
    """
    rows = [[name, *(make(seen) for seen in runs)] for name, make in _ROWS]
    rows = [row for row in rows if any(row[1:])]
    heads = ["Run", *(seen.name for seen in runs)]
    caption = "What was run, predicted and measured"
    return table(caption, heads, rows, cls="summary")


def status_words(seen: Seen) -> str:
    """Return how a run stands, in a word or a few.

    Args:
        seen: the run.
    """
    # A run that was killed cannot say so.
    return "running or killed" if seen.run.status == "running" else seen.run.status


def progress_words(seen: Seen) -> str:
    """Return how far a run is.

    Args:
        seen: the run.
    """
    return f"{seen.run.step:,} of {seen.run.steps:,} steps"


def prediction_error(seen: Seen) -> float | None:
    """Return the relative error of the predicted peak, negative where it was too low.

    Args:
        seen: the run.
    """
    peak = seen.run.measured.get("peak", 0.0)
    return None if seen.plan is None or peak <= 0 else seen.plan.predicted.peak / peak - 1


def _status(seen: Seen) -> Html:
    mark = tag("span", status_words(seen), cls=f"status {seen.run.status}")
    return joined([mark, tag("p", seen.run.note)]) if seen.run.note else mark


def _pairs(pairs: dict[str, str]) -> Html:
    return joined(
        [tag("div", tag("span", f"{name} ", cls="key"), value) for name, value in pairs.items()]
    )


def _budget(seen: Seen) -> str:
    budget = seen.run.budget
    if budget is None:
        return "none"
    peak = seen.run.measured.get("peak")
    if peak is None or _reserved(seen):
        return format_bytes(budget)
    return f"{format_bytes(budget)}, {'kept' if peak <= budget else 'exceeded'}"


def _reserved(seen: Seen) -> int:
    """Return what a card's context and reserve are predicted to take, in bytes."""
    plan = seen.plan
    return 0 if plan is None else max(plan.predicted.footprint - plan.predicted.peak, 0)


def _measured_peak(seen: Seen) -> str:
    peak, error = seen.run.measured.get("peak"), prediction_error(seen)
    if peak is None:
        return "not measured yet"
    words = format_bytes(peak)
    return words if error is None else f"{words} (prediction {error:+.1%})"


def _measured(name: str, write: Callable[[float], str]) -> Callable[[Seen], str]:
    def make(seen: Seen) -> str:
        value = seen.run.measured.get(name)
        return "not measured yet" if value is None else write(value)

    return make


def _predicted(make: Callable[[Seen], str]) -> Callable[[Seen], str]:
    return lambda seen: _UNKNOWN if seen.plan is None else make(seen)


def _figure(which: str, field: str) -> Callable[[Seen], str]:
    def make(seen: Seen) -> str:
        assert seen.plan is not None
        figures = seen.plan.plain if which == "plain" else seen.plan.predicted
        if field == "seconds":
            return format_seconds(figures.seconds)
        return format_bytes(figures.peak if field == "peak" else figures.footprint)

    return _predicted(make)


def _footprint(seen: Seen) -> str:
    if not _reserved(seen) or seen.plan is None:
        return ""
    return format_bytes(seen.plan.predicted.footprint)


def _last(kind: str) -> Callable[[Seen], str]:
    def make(seen: Seen) -> str:
        entries = [entry for entry in seen.log if entry.kind == kind]
        if not entries:
            return "none yet"
        entry = entries[-1]
        keep = entry.values if kind == "eval" else {"loss": entry.values.get("loss", math.nan)}
        shown = ", ".join(f"{name} {shown_value(name, value)}" for name, value in keep.items())
        return f"{shown} (step {entry.step})"

    return make


def _optimizer(seen: Seen) -> str:
    if seen.plan is None:
        return _UNKNOWN
    return seen.plan.optimizer_path.rpartition(".")[2] or "none"


_ROWS: Final[tuple[tuple[str, Callable[[Seen], str]], ...]] = (
    ("Status", _status),
    ("Steps taken", progress_words),
    ("Model", lambda seen: seen.run.model),
    ("Task", lambda seen: seen.run.task),
    ("Data", lambda seen: _pairs(seen.run.data)),
    ("Batch", _predicted(lambda seen: seen.plan.batch if seen.plan else "")),
    ("Optimizer", _optimizer),
    ("Options", lambda seen: _pairs(seen.run.options) if seen.run.options else _UNKNOWN),
    ("Budget of memory", _budget),
    ("Peak of the plain step, predicted", _figure("plain", "peak")),
    ("Peak as planned, predicted", _figure("predicted", "peak")),
    ("The same with the card's context and reserve", _footprint),
    ("Peak, measured", _measured_peak),
    ("Resident size, measured", _measured("resident", format_bytes)),
    ("Step time of the plain step, predicted", _figure("plain", "seconds")),
    ("Step time as planned, predicted", _figure("predicted", "seconds")),
    ("Step time, measured", _measured("seconds", format_seconds)),
    ("Last training loss", _last("train")),
    ("Last evaluation", _last("eval")),
    ("Machine", lambda seen: seen.run.machine),
    ("Seed", lambda seen: str(seen.run.seed)),
    ("Started", lambda seen: seen.run.started),
    ("Versions", lambda seen: _pairs(seen.run.versions)),
    ("Command", lambda seen: tag("code", seen.run.command)),
)
