"""The table of suggested rates."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Final

from bench.harness import RESULTS
from bench.zeroth.sources import sources
from shoestring.core.documents import read_document

SCHEMA: Final = "shoestring/bench/zeroth-suggested/1"
FOLDER: Final = "zeroth-suggested"
DEPENDS: Final = ("survey", "suggested/tasks.py", "suggested/__main__.py")
POINTS: Final = 2.0
"""What the suggested rate may be behind by."""
TITLES: Final = {
    "digits": "digits, MLP from random weights",
    "cancer": "breast cancer, MLP from random weights",
    "inverted": "digits inverted, CNN trained on digits",
    "tweets": "tweets, MiniLM with LoRA, head of zeros",
}


def suggested(results: Path = RESULTS) -> str:
    """Return accuracies at the suggested rate and at the best of a grid.

    Args:
        results: folder of all results.
    """
    lines, older = [], False
    for name, title in TITLES.items():
        paths = sorted((results / FOLDER).glob(f"{name}-*.json"))
        runs = [dict(read_document(path, SCHEMA)) for path in paths]
        if runs:
            older |= any(run["source_hash"] != sources(*DEPENDS) for run in runs)
            lines.append(_line(title, runs))
    if not lines:
        return "*not run yet*"
    head = ["task", "seeds", "at its start", "suggested rates", "accuracy", "best of the grid"]
    head += ["its accuracy", "behind by", f"bar: {POINTS:.0f} points"]
    rule = ["---", *["--:"] * (len(head) - 1)]
    grid = "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *lines))
    said = (
        "Accuracy on the test part in percent, means over seeds; ZOSGD. The tasks, their steps and "
        "the grids of nine half decades were fixed before. `suggest` is given the losses of the "
        "rows of eight batches; the best of the grid is the rate with the best mean accuracy on "
        "the test part itself."
    )
    return f"{grid}\n\n{said}" + (" † measured with older code." if older else "")


def _line(title: str, runs: list[dict[str, object]]) -> list[str]:
    ours = [100 * _number(run["suggested"]) for run in runs]
    grids = [run["grid"] for run in runs]
    means = {}
    for rate in grids[0] if isinstance(grids[0], dict) else {}:
        means[rate] = statistics.fmean(100 * _number(g[rate]) for g in grids if isinstance(g, dict))
    best = max(means, key=means.__getitem__)
    behind = means[best] - statistics.fmean(ours)
    rates = sorted(_number(run["rate"]) for run in runs)
    edge = " (at its edge)" if best in (next(iter(means)), list(means)[-1]) else ""
    return [
        title,
        str(len(runs)),
        f"{statistics.fmean(100 * _number(run['start']) for run in runs):.1f}",
        f"{rates[0]:.1e} to {rates[-1]:.1e}",
        f"{statistics.fmean(ours):.1f}",
        f"{float(best):.1e}{edge}",
        f"{means[best]:.1f}",
        f"{behind:+.1f}",
        "met" if behind <= POINTS else "**missed**",
    ]


def _number(value: object) -> float:
    return float(str(value))
