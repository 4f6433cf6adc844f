"""What the demo's runs did, what it claims of them, and how both are shown."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import statistics
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from demo_terms import LONGEST_SHORT_FORM, MEASURED_STEP, MIB

SCHEMA: Final = "shoestring/demo/1"
WIDTH: Final = 80
LARGEST_PREDICTION_ERROR: Final = 0.05
LARGEST_ACCURACY_GAP: Final = 0.005

_REFUSALS: Final = (
    "DefaultCPUAllocator: can't allocate memory",
    "std::bad_alloc",
    "MemoryError",
)
"""The ways in which torch, the C++ library and Python say that memory was refused."""


@dataclasses.dataclass(slots=True)
class Outcome:
    """What one run did, filled in as its events arrive.

    Attributes:
        title: the run's name in the table.
        limit: RLIMIT_DATA in bytes, or None.
        loaded: VmData before the model was loaded, in bytes.
        losses: of each finished step, exactly, as `float.hex` writes them.
        seconds: of each finished step.
        peak: measured bytes of one steady step.
        predicted: bytes of one step, predicted on tensors without data.
        resident: largest resident size in bytes.
        accuracy: on held-out tweets, from 0 to 1.
        tested: how many those were.
        changes: the plan in words.
        planning_seconds: what profiling and planning took.
        exit_code: of the process; negative where a signal ended it.
        error: the last line of its error, or empty.
        torch: version.
    """

    title: str
    limit: int | None = None
    loaded: int = 0
    losses: list[str] = dataclasses.field(default_factory=list)
    seconds: list[float] = dataclasses.field(default_factory=list)
    peak: int | None = None
    predicted: int | None = None
    resident: int | None = None
    accuracy: float | None = None
    tested: int = 0
    changes: list[str] = dataclasses.field(default_factory=list)
    planning_seconds: float | None = None
    exit_code: int | None = None
    error: str = ""
    torch: str = ""

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return self.exit_code == 0 and self.accuracy is not None

    @property
    def refused_memory(self) -> bool:
        """Whether the run died because it was refused memory."""
        return self.exit_code not in (0, None) and any(r in self.error for r in _REFUSALS)

    @property
    def step_seconds(self) -> float | None:
        """Median time of a step, without those up to the measured one."""
        steady = self.seconds[MEASURED_STEP + 1 :]
        return statistics.median(steady) if steady else None


@dataclasses.dataclass(frozen=True, slots=True)
class Claim:
    """One thing the demo says.

    Attributes:
        text: what is claimed.
        holds: whether it came out so.
        figure: what was found.
    """

    text: str
    holds: bool
    figure: str


def check(
    plain: Outcome, limited: Outcome, ours: Outcome, *, budget: int, steps: int
) -> list[Claim]:
    """Hold the demo's claims against what the runs did.

    Args:
        plain: the run without a limit.
        limited: the plain run under the limit.
        ours: shoestring's run under the limit.
        budget: bytes of one step.
        steps: that each run was to train.

    Returns:
        The claims; accuracy only where the runs are long enough for it to mean something.
    """
    equal = equal_losses(plain, ours)
    errors = [prediction_error(run) for run in (plain, ours)]
    claims = [
        Claim(
            "plain training is killed by the limit", limited.refused_memory, describe_end(limited)
        ),
        Claim("shoestring finishes under the same limit", ours.finished, describe_end(ours)),
        Claim(
            "its measured peak is within the budget",
            ours.peak is not None and ours.peak <= budget,
            f"{_mib(ours.peak)} of {_mib(budget)}",
        ),
        Claim(
            f"peaks are predicted within {LARGEST_PREDICTION_ERROR:.0%}",
            all(e is not None and abs(e) <= LARGEST_PREDICTION_ERROR for e in errors),
            " and ".join("none" if e is None else f"{e:+.1%}" for e in errors),
        ),
        Claim(
            "losses are bitwise equal to plain training",
            equal == steps == len(plain.losses) == len(ours.losses),
            f"{equal} of {steps} steps",
        ),
    ]
    if steps > LONGEST_SHORT_FORM:
        gap = math.inf
        if plain.accuracy is not None and ours.accuracy is not None:
            gap = abs(ours.accuracy - plain.accuracy)
        claims.append(
            Claim(
                "test accuracy is within half a point of plain training",
                gap <= LARGEST_ACCURACY_GAP,
                f"{100 * gap:.2f} points apart",
            )
        )
    return claims


def equal_losses(one: Outcome, other: Outcome) -> int:
    """Return on how many steps, from the first, two runs have the same loss to the last bit.

    Args:
        one: a run.
        other: another.
    """
    count = 0
    for a, b in zip(one.losses, other.losses, strict=False):
        if a != b:
            break
        count += 1
    return count


def prediction_error(run: Outcome) -> float | None:
    """Return how far the predicted peak is above the measured one, as a share of it.

    Args:
        run: a run.
    """
    if run.predicted is None or not run.peak:
        return None
    return run.predicted / run.peak - 1


def describe_end(run: Outcome) -> str:
    """Return how a run ended, in a few words.

    Args:
        run: a run that is over.
    """
    if run.finished:
        return "finished"
    if run.refused_memory:
        return f"killed in step {len(run.losses) + 1}"
    return f"failed, exit {run.exit_code}"


def table(plain: Outcome, limited: Outcome, ours: Outcome, *, budget: int) -> str:
    """Return the runs side by side, at most 80 characters wide.

    Args:
        plain: the run without a limit.
        limited: the plain run under the limit.
        ours: shoestring's run under the limit.
        budget: bytes of one step.
    """
    runs = (plain, limited, ours)

    def row(label: str, cells: Sequence[str]) -> str:
        return f"{label:<18}" + "".join(f"{cell:>20}" for cell in cells)

    limits = ["none" if r.limit is None else _mib(budget) for r in runs]
    rows = [
        row("", ["plain", "plain", "shoestring"]),
        row("enforced budget", limits),
        "-" * 78,
        row("result", [describe_end(r) for r in runs]),
        row("predicted peak", [_mib(r.predicted) for r in runs]),
        row("measured peak", [_mib(r.peak) for r in runs]),
        row("resident size", [_mib(r.resident) for r in runs]),
        row("seconds per step", [_seconds(r, plain) for r in runs]),
        row("first loss", [_loss(r.losses[:1]) for r in runs]),
        row("last loss", [_loss(r.losses[-1:]) for r in runs]),
        row("test accuracy", ["-" if r.accuracy is None else f"{r.accuracy:.1%}" for r in runs]),
        "-" * 78,
    ]
    steps = max(len(plain.losses), 1)
    equal = equal_losses(plain, ours)
    answer = "yes" if equal == steps == len(ours.losses) else "NO"
    rows.append(f"losses bitwise equal: {answer} ({equal} of {steps} steps)")
    return "\n".join(rows)


def explain(plain: Outcome, limited: Outcome, ours: Outcome, *, budget: int) -> str:
    """Return what the table means, in plain words.

    Args:
        plain: the run without a limit.
        limited: the plain run under the limit.
        ours: shoestring's run under the limit.
        budget: bytes of one step.
    """
    parts = [
        f"One training step of this model takes {_mib(plain.peak)} when nothing limits it. "
        f"The budget is 60 % of that, {_mib(budget)}, on top of what Python and its "
        f"libraries take anyway ({_mib(plain.loaded)}), and the kernel enforces the sum."
    ]
    if limited.refused_memory:
        parts.append(
            f"The ordinary loop died of it in step {len(limited.losses) + 1} "
            f"(exit code {limited.exit_code}):"
        )
        parts.append(f"    {limited.error}")
    if ours.finished:
        parts.append(
            f"shoestring planned the step before running it ({'; '.join(ours.changes)}), in "
            f"{ours.planning_seconds or 0:.1f} s, said "
            f"{_mib(ours.predicted)}, took {_mib(ours.peak)}, and went through the same losses "
            "as the ordinary loop with all the memory it wants."
            if equal_losses(plain, ours) == len(plain.losses)
            else f"shoestring took {_mib(ours.peak)}, but its losses are not the ordinary ones."
        )
    elif ours.error:
        parts += ["shoestring's run ended with:", f"    {ours.error}"]
    return "\n".join(
        textwrap.fill(part, WIDTH - 2, subsequent_indent="    " if part[0] == " " else "")
        for part in parts
    )


def verdict(claims: Sequence[Claim]) -> str:
    """Return the claims, one a line.

    Args:
        claims: what `check` returned.
    """
    return "\n".join(f"{'ok  ' if c.holds else 'FAIL'}  {c.text} ({c.figure})" for c in claims)


def write_results(folder: Path, results: Mapping[str, object]) -> Path:
    """Write the results as JSON, whole or not at all.

    Args:
        folder: made where it is missing.
        results: plain data.

    Returns:
        The file's path.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "demo.json"
    handle, name = tempfile.mkstemp(prefix=".demo-", suffix=".json", dir=folder)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump({"schema": SCHEMA, **results}, file, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return target


def _mib(size: int | None) -> str:
    return "-" if size is None else f"{size / MIB:,.0f} MiB"


def _seconds(run: Outcome, plain: Outcome) -> str:
    own, base = run.step_seconds, plain.step_seconds
    if own is None:
        return "-"
    against = "" if run is plain or not base else f" ({own / base:.2f}x)"
    return f"{own:.2f}{against}"


def _loss(hexes: Sequence[str]) -> str:
    return f"{float.fromhex(hexes[0]):.4f}" if hexes else "-"
