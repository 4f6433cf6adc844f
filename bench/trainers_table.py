"""The table of `bench.trainers`: what a plan costs in time, beside what the Trainer offers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.harness import RESULTS, has_changed
from bench.trainers_results import POINTS, Outcome, read_all
from bench.trainers_terms import AUTO_FIND, LEAST, SECONDS, SLOWER, TITLES
from shoestring.core.units import format_bytes

HEAD: Final = (
    "way to train", "batch", "tokens a second, of plain", "10 to 90 %", "peak", "same gradients",
    "time of a step, predicted", "measured", f"within {POINTS:.0%}".replace("%", " points"),
)  # fmt: skip


def trainers(results: Path = RESULTS) -> str:
    """Return a table for each job, with the plan for a step time in a line below.

    Args:
        results: folder of all results.
    """
    from bench.tables import FOOTNOTE, NOT_RUN  # that module lists this function

    found = read_all(results)
    jobs = {outcome.job: outcome.description for outcome in found}
    if not jobs:
        return NOT_RUN
    order = list(TITLES)
    parts = []
    for job in sorted(jobs, reverse=True):
        own = sorted((o for o in found if o.job == job), key=lambda o: order.index(o.side))
        parts.append(_job(own))
    parts.append(
        "Tokens: padding included, by processor time of one thread, plain = 1.00; all sides in "
        "turns. Peak: of the allocator. Plans run in `PlannedTrainer`, the others in "
        "`transformers.Trainer`." + (f" {FOOTNOTE}" if any(map(_is_older, found)) else "")
    )
    return "\n\n".join(parts)


def _job(outcomes: Sequence[Outcome]) -> str:
    """Return what is said of one job."""
    first = outcomes[0]
    parts = [
        f"{first.description}: batch {first.asked_rows} x {first.length} tokens, "
        f"{first.optimizer}, gradients clipped to a norm of {first.max_grad_norm:g}.",
        _grid([_row(o) for o in outcomes if o.side != SECONDS]),
    ]
    parts += [_for_seconds(o) for o in outcomes if o.side == SECONDS]
    parts += [f"{_name(o)}: failed; {o.error}" for o in outcomes if o.error]
    return "\n\n".join(parts)


def _grid(rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["--:"] * (len(HEAD) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (HEAD, rule, *rows))


def _row(outcome: Outcome) -> list[str]:
    batch = f"{outcome.rows} x {outcome.length}"
    if not outcome.feasible:
        assert outcome.predicted_peak is not None
        least = f"infeasible: the least is {format_bytes(outcome.predicted_peak)}"
        return [f"{_name(outcome)}: {least}", *[""] * (len(HEAD) - 1)]
    if outcome.error or not outcome.timed or outcome.peak is None:
        state = "failed" if outcome.error else "not run"
        return [_name(outcome), batch, state, *[""] * (len(HEAD) - 3)]
    speed, (low, high) = outcome.speed
    return [
        _name(outcome),
        batch,
        f"{speed:.2f}{_dagger(outcome)}",
        f"{low:.2f} to {high:.2f}",
        format_bytes(outcome.peak) + _dagger(outcome),
        {True: "yes", False: "**no**", None: ""}[outcome.same_gradients],
        *_times(outcome),
    ]


def _name(outcome: Outcome) -> str:
    name = outcome.title
    if outcome.budget is not None and outcome.side != LEAST:
        enforced = " enforced" if outcome.side == AUTO_FIND else ""
        name += f" ({format_bytes(outcome.budget)}{enforced})"
    if outcome.feasible and outcome.predicted_ratio is not None:
        name += f": {' + '.join(outcome.changes) or 'nothing changed'}"
    return name


def _times(outcome: Outcome) -> list[str]:
    """Return predicted and measured time over the plain step's, and the verdict."""
    if outcome.predicted_ratio is None:
        return ["", "", ""]
    return [
        f"{outcome.predicted_ratio:.2f}",
        f"{outcome.time[0]:.2f}{_dagger(outcome)}",
        _verdict(outcome),
    ]


def _verdict(outcome: Outcome) -> str:
    return {None: "", True: "met", False: "**missed**"}[outcome.met]


def _for_seconds(outcome: Outcome) -> str:
    """Return what the planner makes of a step time."""
    asked = f"Given {SLOWER} times the plain step's predicted time, `Budget(seconds=...)` finds "
    changes = " + ".join(outcome.changes) or "nothing to change"
    if not outcome.feasible:
        return asked + "no plan."
    assert outcome.predicted_peak is not None
    assert outcome.predicted_ratio is not None
    predicted = (
        f"{asked}{changes}: {format_bytes(outcome.predicted_peak)} predicted in "
        f"{outcome.predicted_ratio:.2f} of that time"
    )
    if outcome.error or not outcome.timed or outcome.peak is None:
        return f"{predicted}; not measured."
    return (
        f"{predicted}, {format_bytes(outcome.peak)} measured in {outcome.time[0]:.2f} of the "
        f"plain step's{_dagger(outcome)}: {_verdict(outcome)}."
    )


def _is_older(outcome: Outcome) -> bool:
    return has_changed(outcome.rooms, outcome.source_hash)


def _dagger(outcome: Outcome) -> str:
    from bench.tables import OLDER

    return OLDER if _is_older(outcome) else ""
