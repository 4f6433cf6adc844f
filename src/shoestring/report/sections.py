"""A run's own part of the page: memory, curves, plan and modules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from shoestring.core.markup import Html, joined, table, tag
from shoestring.core.units import format_bytes, format_seconds
from shoestring.measure.counting.html import count_parts
from shoestring.planner.plan import Plan
from shoestring.report.curves import curves_figure, series, value_names
from shoestring.report.memory import memory_figure
from shoestring.report.modules import modules_figure
from shoestring.report.pareto import pareto_figure
from shoestring.report.reading import Seen
from shoestring.report.summary import prediction_error, progress_words, status_words

_MOST_CURVES: Final = 12
_DEPTH: Final = 3
_NOTHING: Final = Html("")


def run_sections(seen: Seen, *, prefix: str, level: int) -> list[tuple[str, str, Html]]:
    """Return the sections of a run.

    Args:
        seen: the run.
        prefix: what ids begin with.
        level: of their headings, as in 2 for ``h2``.

    Returns:
        The id, the title and the section itself, in order.
    """
    parts = (
        ("memory", "Memory", _memory(seen, prefix)),
        ("curves", "Loss and metrics", _curves(seen, prefix)),
        ("plan", "Plan", _plan(seen, prefix)),
        ("modules", "What the modules hold", _modules(seen, prefix)),
        ("count", "Where the FLOPs and bytes go", _count(seen)),
    )
    return [
        (f"{prefix}-{name}", title, section(f"{prefix}-{name}", title, content, level=level))
        for name, title, content in parts
    ]


def section(ident: str, title: str, content: Html, *, level: int, cls: str = "") -> Html:
    """Return a section that is named by its heading.

    Args:
        ident: its id.
        title: of its heading.
        content: what it holds.
        level: of the heading.
        cls: a class.
    """
    head = tag(f"h{level}", title, ident=f"{ident}-title")
    named = {"aria-labelledby": f"{ident}-title"}
    return tag("section", head, content, ident=ident, cls=cls, attributes=named)


def tiles(seen: Seen) -> Html:
    """Return the few figures that say how a run went.

    Args:
        seen: the run.
    """
    plan, measured = seen.plan, seen.run.measured
    found = [("Status", status_words(seen), progress_words(seen))]
    if "peak" in measured:
        error = prediction_error(seen)
        small = "" if error is None else f"predicted within {abs(error):.1%}"
        found.append(("Measured peak", format_bytes(measured["peak"]), small))
    elif plan is not None:
        found.append(("Predicted peak", format_bytes(plan.predicted.peak), "not measured yet"))
    if plan is not None and plan.plain.peak:
        saved = 1 - plan.predicted.peak / plan.plain.peak
        small = (
            f"plain {format_bytes(plan.plain.peak)}, planned {format_bytes(plan.predicted.peak)}"
        )
        found.append(("Memory saved, predicted", f"{saved:.0%}", small))
    if "seconds" in measured:
        small = "" if plan is None else f"predicted {format_seconds(plan.predicted.seconds)}"
        found.append(("Time of a step", format_seconds(measured["seconds"]), small))
    shown = tag("dl", *(_tile(*one) for one in found), cls="tiles")
    note = tag("p", seen.run.note, cls="missing") if seen.run.note else _NOTHING
    return joined([note, shown])


def _tile(name: str, value: str, small: str) -> Html:
    more = tag("dd", small, cls="small") if small else _NOTHING
    return tag("div", tag("dt", name), tag("dd", value, cls="value"), more)


def _missing(what: str, seen: Seen, part: str) -> Html:
    return tag("p", f"{what}: {seen.missing[part]}", cls="missing")


def _memory(seen: Seen, prefix: str) -> Html:
    if seen.timeline is None:
        return _missing("No memory over time", seen, "timeline")
    plan = seen.plan
    reserved = 0 if plan is None else max(plan.predicted.footprint - plan.predicted.peak, 0)
    return memory_figure(seen.timeline, seen.run.budget, reserved=reserved, prefix=prefix)


def _curves(seen: Seen, prefix: str) -> Html:
    if not seen.log:
        return _missing("No curves", seen, "log")
    names = value_names(seen.log)
    figures = []
    for number, name in enumerate(names[:_MOST_CURVES]):
        lines = [series(seen.log, name, kind, kind) for kind in ("train", "eval")]
        lines = [line for line in lines if line.points or line.lost]
        small = name != "loss"
        figures.append(
            curves_figure(
                name,
                lines,
                prefix=f"{prefix}-{number}",
                heading=_TITLES.get(name, ""),
                small=small,
            )
        )
    large = [shown for name, shown in zip(names, figures, strict=False) if name == "loss"]
    rest = [shown for name, shown in zip(names, figures, strict=False) if name != "loss"]
    left = names[_MOST_CURVES:]
    note = tag("p", f"Logged as well: {', '.join(left)}.") if left else _NOTHING
    return joined([*large, tag("div", *rest, cls="small-figures") if rest else _NOTHING, note])


_TITLES: Final = {
    "loss": "Loss",
    "lr": "Learning rate",
    "grad_norm": "Norm of the gradients",
    "seconds": "Time of a step",
}


def _plan(seen: Seen, prefix: str) -> Html:
    plan = seen.plan
    if plan is None:
        return _missing("No plan to show", seen, "plan")
    return joined(
        [
            _steps(plan),
            _rows(plan),
            _refused(plan),
            *_notes(plan),
            pareto_figure(plan, prefix=prefix),
        ]
    )


def _steps(plan: Plan) -> Html:
    if not plan.steps:
        return tag("p", "The step is run as it is; nothing was changed.")
    items = [
        tag("li", tag("strong", step.describe()), f" ({step.name}{_options(step.options())})")
        for step in plan.steps
    ]
    return joined([tag("p", "The step was changed by:"), tag("ol", *items)])


def _options(options: object) -> str:
    if not isinstance(options, dict):
        return ""
    shown = []
    for name, value in options.items():
        words = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
        shown.append(f"{name.replace('_', ' ')} {words if len(words) < 60 else words[:57] + '…'}")
    return f"; {'; '.join(shown)}" if shown else ""


def _rows(plan: Plan) -> Html:
    with_batch = any(row.largest_batch is not None for row in plan.rows)
    heads = ["Way to run the step", "Peak", "Step time", "Gradients", "Fits"]
    rows = []
    for row in plan.rows:
        cells = [
            joined([row.label, tag("span", " chosen", cls="chosen")]) if row.planned else row.label,
            format_bytes(row.figures.footprint),
            format_seconds(row.figures.seconds),
            row.fidelity,
            "yes" if row.fits else "no",
        ]
        if with_batch:
            cells.append("not known" if row.largest_batch is None else str(row.largest_batch))
        rows.append(cells)
    return table(
        "Ways to run the step, predicted",
        heads + ["Largest batch"] * with_batch,
        rows,
        numbers=(1, 2, 5),
        marked=[i for i, row in enumerate(plan.rows) if row.planned],
    )


def _refused(plan: Plan) -> Html:
    if not plan.refused:
        return _NOTHING
    rows: Sequence[Sequence[str]] = [list(pair) for pair in plan.refused]
    return table("What could not be used, and why", ["Technique", "Reason"], rows, cls="words")


def _notes(plan: Plan) -> list[Html]:
    notes = []
    if any(row.label.startswith("... + ") for row in plan.rows):
        notes.append("...: with the exact changes of forward and backward above.")
    if plan.predicted.footprint != plan.predicted.peak:
        notes.append("Peaks in the table are with the card's context and reserve.")
    if not plan.measured_on_machine:
        notes.append("Predictions for this machine have not been compared with one yet.")
    return [tag("p", note, cls="note") for note in notes]


def _modules(seen: Seen, prefix: str) -> Html:
    if seen.timeline is None:
        return _missing("No costs by module", seen, "timeline")
    found = modules_figure(seen.timeline.modules, prefix=prefix)
    return found or tag("p", "The timeline has no costs by module.", cls="missing")


def _count(seen: Seen) -> Html:
    if seen.count is None:
        return _missing("No count", seen, "count")
    title = tag("p", f"Of one step as it is run: {seen.count.counted.title}.", cls="note")
    return joined([title, *count_parts(seen.count, _DEPTH)])
