"""The same budget of tuning for every method: a grid that is thinned as runs trail."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from bench.zeroth.finetune.methods import METHODS, rates
from bench.zeroth.finetune.runs import GOALS, Run, result
from bench.zeroth.finetune.task import Task

STAGES: Final = ((150, 8), (600, 3))
"""Steps of a run, and how many learning rates are tried with as many."""
STEPS: Final = 3000
SEEDS: Final = (0, 1, 2)


def search(method: str, mode: str, metric: str = "loss") -> None:
    """Find a method's learning rate on the validation part, and run it with every seed.

    Args:
        method: of `METHODS`.
        mode: what of the model is trained.
        metric: of `GOALS`; rates are around what is measured of the loss, whichever it is.
    """

    def run(lr: float, steps: int, seed: int = SEEDS[0]) -> Run:
        return Run(method, mode, lr, seed, steps, metric)

    candidates = rates(METHODS[method].kind, Task(mode, SEEDS[0]), GOALS[metric].rows)
    for steps, count in STAGES:
        candidates = from_best([run(lr, steps) for lr in candidates[:count]])
    lr = candidates[0]
    for seed in SEEDS:
        found = result(run(lr, STEPS, seed))
        words = (method, mode, metric, f"{lr:.2e}", seed)
        print(*words, found["curve"][-1], found["test"], flush=True)


def from_best(runs: Sequence[Run]) -> list[float]:
    """Return the learning rates of runs, the one that ends best on the validation part first.

    Args:
        runs: one for each rate.
    """
    ends = {run.lr: end_of(run) for run in runs}
    return sorted(ends, key=ends.__getitem__)


def end_of(run: Run) -> float:
    """Return what a run minimised, on the validation part; infinite where it went astray.

    Args:
        run: made where it has not been.
    """
    found = result(run)
    if not found["finished"]:
        return math.inf
    _, _, loss, accuracy = found["curve"][-1]
    end = loss if run.metric == "loss" else -accuracy
    return end if math.isfinite(end) else math.inf
