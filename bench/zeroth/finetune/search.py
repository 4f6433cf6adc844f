"""The same budget of tuning for every method: a grid that is thinned as runs trail."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from bench.zeroth.finetune.methods import METHODS, rates
from bench.zeroth.finetune.runs import Run, result
from bench.zeroth.finetune.task import Task

STAGES: Final = ((150, 8), (600, 3))
"""Steps of a run, and how many learning rates are tried with as many."""
STEPS: Final = 3000
SEEDS: Final = (0, 1, 2)


def search(method: str, mode: str) -> None:
    """Find a method's learning rate on the validation part, and run it with every seed.

    Args:
        method: of `METHODS`.
        mode: what of the model is trained.
    """
    candidates = rates(METHODS[method].kind, Task(mode, SEEDS[0]))
    for steps, count in STAGES:
        candidates = best([Run(method, mode, lr, SEEDS[0], steps) for lr in candidates], count)
    (lr,) = best([Run(method, mode, lr, SEEDS[0], STAGES[-1][0]) for lr in candidates], 1)
    for seed in SEEDS:
        found = result(Run(method, mode, lr, seed, STEPS))
        print(method, mode, f"{lr:.2e}", seed, found["curve"][-1], found["test"], flush=True)


def best(runs: Sequence[Run], count: int) -> list[float]:
    """Return the learning rates of the runs with the least loss on the validation part.

    Args:
        runs: one for each rate.
        count: how many are kept.
    """
    return sorted((run.lr for run in runs), key={r.lr: loss_of(r) for r in runs}.__getitem__)[
        :count
    ]


def loss_of(run: Run) -> float:
    """Return the last loss on the validation part; infinite where the run went astray.

    Args:
        run: made where it has not been.
    """
    found = result(run)
    if not found["finished"]:
        return math.inf
    loss = float(found["curve"][-1][2])
    return loss if math.isfinite(loss) else math.inf
