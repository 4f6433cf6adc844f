"""The table of estimated and measured times of a step, and whether the bars are met."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from statistics import median
from typing import Final, TypeAlias

from bench.harness import RESULTS, has_changed
from shoestring.core.documents import read_document

Record: TypeAlias = dict[str, object]

SCHEMA: Final = "shoestring/bench/roofline/1"
MEAN_LIMIT: Final = 1.3
"""Most that the geometric mean of the errors may be, as a factor."""
EACH_LIMIT: Final = 2.0
"""Most that the error of one step may be."""
MODELS_LIMIT: Final = 27
"""Models that must be within it at both batches."""


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """One measured and estimated step.

    Attributes:
        model: its name.
        batch: its rows.
        measured: seconds of the processor, median.
        predicted: estimated seconds.
        unfused: of the estimate, the kernels' work alone.
        fused: seconds if all were one kernel.
        bound: what most of the estimate is bound by.
        older: whether the code has changed since.
        drawn: whether it is an architecture that a seed drew, and no model of the zoo.
    """

    model: str
    batch: int
    measured: float
    predicted: float
    unfused: float
    fused: float
    bound: str
    older: bool
    drawn: bool = False

    @property
    def ratio(self) -> float:
        """Predicted over measured."""
        return self.predicted / self.measured

    @property
    def error(self) -> float:
        """The ratio as a factor of at least 1, whichever is larger."""
        return max(self.ratio, 1 / self.ratio)


def read_steps(results: Path = RESULTS) -> tuple[list[Step], dict[str, str]]:
    """Return the steps of all results, and models that failed with what they said.

    Args:
        results: folder of all results.
    """
    steps, failed = [], {}
    for path in sorted((results / "roofline").glob("*.json")):
        document = read_document(path, SCHEMA)
        name, rooms = str(document["model"]), document["rooms"]
        if "error" in document:
            failed[name] = str(document["error"])
            continue
        rows = document["rows"]
        assert isinstance(rows, list)
        assert isinstance(rooms, list)
        older = has_changed([str(room) for room in rooms], str(document["source_hash"]))
        drawn = document.get("drawn") is True
        steps += [dataclasses.replace(_step(name, row, older), drawn=drawn) for row in rows]
    return steps, failed


def _step(name: str, row: dict[str, object], older: bool) -> Step:
    samples, bound = row["samples"], row["bound"]
    assert isinstance(samples, list)
    assert isinstance(bound, dict)
    return Step(
        model=name,
        batch=int(str(row["batch"])),
        measured=median(float(sample) for sample in samples),
        predicted=float(str(row["predicted"])),
        unfused=float(str(row["unfused"])),
        fused=float(str(row["fused"])),
        bound=max(bound, key=lambda key: float(bound[key])),
        older=older,
    )


def summarise(steps: list[Step], failed: dict[str, str]) -> str:
    """Return whether the bars are met, in sentences.

    Args:
        steps: at least one.
        failed: models that were not measured.
    """
    mean = _mean(steps)
    models = {step.model: True for step in steps}
    for step in steps:
        models[step.model] &= step.error <= EACH_LIMIT
    good, count = sum(models.values()), len(models) + len(failed)
    missed = [
        f"{step.model} with {step.batch} rows ({step.ratio:.2f})"
        for step in steps
        if step.error > EACH_LIMIT
    ]
    missed += [f"{name} ({why})" for name, why in failed.items()]
    return (
        f"Geometric mean of the factors by which {len(steps)} steps are wrong: **{mean:.2f}** of "
        f"at most {MEAN_LIMIT} ({_met(mean <= MEAN_LIMIT)}). Within a factor of {EACH_LIMIT:g} at "
        f"both batches: **{good} of {count} models**, of at least {MODELS_LIMIT} "
        f"({_met(good >= MODELS_LIMIT)}). "
        + (f"Missed: {', '.join(missed)}." if missed else "None missed.")
    )


def held_out(steps: list[Step]) -> str:
    """Return how far drawn architectures are off, in sentences.

    Args:
        steps: of architectures that nobody looked at before.
    """
    models = sorted({step.model for step in steps})
    far = sorted({step.model for step in steps if step.error > EACH_LIMIT})
    return (
        "What measures the constants was chosen with the zoo in sight. Of architectures that a "
        f"seed drew from transformers, {len(steps)} steps are wrong by **{_mean(steps):.2f}** in "
        f"the geometric mean; {len(models) - len(far)} of {len(models)} are within a factor of "
        f"{EACH_LIMIT:g}" + (f", not {', '.join(far)}." if far else ".")
    )


def _mean(steps: list[Step]) -> float:
    """Return the geometric mean of the errors."""
    return math.exp(sum(math.log(step.error) for step in steps) / len(steps))


def _met(met: bool) -> str:
    return "met" if met else "**missed**"


def roofline(results: Path = RESULTS) -> str:
    """Return the table, a row a step, with its summary.

    Args:
        results: folder of all results.
    """
    # Here, since `bench.tables` lists this table among its own.
    from bench.tables import FOOTNOTE, NOT_RUN, OLDER, _grid

    every, failed = read_steps(results)
    steps = [step for step in every if not step.drawn]
    if not steps:
        return NOT_RUN
    lines = [
        [
            step.model,
            str(step.batch),
            f"{step.ratio:.2f}" + (OLDER if step.older else ""),
            f"{step.unfused / step.measured:.2f}",
            f"{step.fused / step.measured:.2f}",
            step.bound,
        ]
        for step in every
    ]
    head = ["model", "batch", "ratio", "unfused", "fused", "most bound by"]
    said = (
        "Measured: processor time of a step with AdamW on one thread, float32, median. Predicted: "
        "its roofline with constants that were measured before, in other processes. Ratio: "
        "predicted over measured. Unfused and fused: the two lower bounds over measured."
    )
    if any(step.older for step in every):
        said += f" {FOOTNOTE}"
    drawn = [step for step in every if step.drawn]
    parts = [
        _grid(head, lines),
        said,
        summarise(steps, failed),
        *([held_out(drawn)] if drawn else []),
    ]
    return "\n\n".join(parts)
