"""Trains each task at the suggested rate and at each of a grid, one JSON file a task and seed.

    python -m bench.zeroth.suggested [TASK ...]

The tasks, their steps and their grids were fixed first. What is there is not run again.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import math
import sys
import time
import warnings
from typing import Final

import torch

from bench.harness import RESULTS, machine, one_thread
from bench.zeroth.sources import sources
from bench.zeroth.suggested.table import DEPENDS, FOLDER, SCHEMA
from bench.zeroth.suggested.tasks import GRID, TASKS, Task
from shoestring import zeroth
from shoestring.core.documents import write_text

SEEDS: Final = (0, 1, 2)
BATCHES: Final = 8
"""That are surveyed."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("tasks", nargs="*", default=list(TASKS), metavar="TASK")
    one_thread()
    warnings.simplefilter("ignore", zeroth.NoiseWarning)  # that is what is looked at
    for seed, name in itertools.product(SEEDS, parser.parse_args().tasks):
        path = RESULTS / FOLDER / f"{name}-{seed}.json"
        if not path.exists():
            before = sources(*DEPENDS)
            document = compare(TASKS[name], seed) | {"task": name, "source_hash": before}
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps(document, indent=1) + "\n")
            print(path.name, document["suggested"], document["grid"], flush=True)
    return 0


def compare(task: Task, seed: int) -> dict[str, object]:
    """Return the accuracies at the suggested rate and at those of the grid.

    Args:
        task: to train.
        seed: of weights, batches and directions.
    """
    began = time.process_time()
    begun = task.begin(seed)
    batches = itertools.islice(begun.batches(task.rows, seed), BATCHES)
    closures = [functools.partial(begun.losses, index) for index in batches]
    found = zeroth.survey(begun.params, closures, steps=task.steps, seed=seed + 1000)
    start = begun.accuracy()
    rates = [10 ** (task.first + k / 2) for k in range(GRID)]
    return {
        "schema": SCHEMA,
        "seed": seed,
        "start": start,
        "rate": found.lr,
        "eps": found.eps,
        "signal": found.signal,
        "evaluations": found.evaluations,
        "suggested": accuracy(task, seed, found.lr, found.eps),
        "grid": {f"{rate:.2e}": accuracy(task, seed, rate, 1e-3) for rate in rates},
        "seconds": time.process_time() - began,
        "machine": machine(),
        "torch": torch.__version__,
        "command": "python -m bench.zeroth.suggested",
    }


def accuracy(task: Task, seed: int, lr: float, eps: float) -> float:
    """Return the accuracy on the test part after a run; 0 where the loss was lost.

    Args:
        task: to train.
        seed: of weights, batches and directions.
        lr: learning rate.
        eps: radius.
    """
    begun = task.begin(seed)
    optimizer = zeroth.ZOSGD(begun.params, lr, eps, seed=seed)
    for index in itertools.islice(begun.batches(task.rows, seed), task.steps):
        loss = float(optimizer.step(lambda index=index: begun.losses(index).mean()))
        if not math.isfinite(loss) or loss > 1e4:
            return 0.0
    return begun.accuracy()


if __name__ == "__main__":
    sys.exit(main())
