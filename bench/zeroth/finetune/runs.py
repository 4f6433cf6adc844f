"""One run of one optimizer, and its result as one JSON file."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from pathlib import Path
from typing import Final, NamedTuple

import torch
from torch import nn

from bench.harness import RESULTS, machine
from bench.zeroth.finetune.data import probe_score
from bench.zeroth.finetune.methods import METHODS
from bench.zeroth.finetune.sources import sources
from bench.zeroth.finetune.task import Task
from shoestring.core.documents import read_document, write_text

SCHEMA: Final = "shoestring/bench/zeroth-finetune/1"
FOLDER: Final = "zeroth-finetune"
POINTS: Final = 6
"""How often a whole run is scored on the validation part; a run for tuning is scored at its end."""
WHOLE: Final = 1000
"""Steps from which a run is no longer for tuning, and is scored on the test part."""


class Goal(NamedTuple):
    """What a step asks for.

    Attributes:
        rows: of a batch.
        eps: radius of zeroth-order optimizers.
    """

    rows: int
    eps: float


GOALS: Final = {"loss": Goal(16, 1e-3), "accuracy": Goal(1000, 1e-2)}
"""The accuracy of few rows is the same on both sides of a small step."""


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """What is run.

    Attributes:
        method: of `METHODS`.
        mode: what of the model is trained.
        lr: learning rate.
        seed: of batches and directions.
        steps: how many.
        metric: of `GOALS`; what is minimised is the loss, or minus the accuracy.
    """

    method: str
    mode: str
    lr: float
    seed: int
    steps: int
    metric: str = "loss"

    @property
    def path(self) -> Path:
        """Where its result is."""
        metric = "" if self.metric == "loss" else f"-{self.metric}"
        name = f"{self.lr:.3e}-{self.steps}-{self.seed}{metric}.json"
        return RESULTS / FOLDER / self.mode / self.method / name


def done(run: Run) -> dict[str, object] | None:
    """Return a run's result, where it has been made.

    Args:
        run: what is run.
    """
    return dict(read_document(run.path, SCHEMA)) if run.path.exists() else None


def result(run: Run, task: Task | None = None) -> dict[str, object]:
    """Return a run's result; it is made where there is none.

    Args:
        run: what is run.
        task: with the weights that the run begins with; by default it is made.
    """
    found = done(run)
    return found if found is not None else make(run, task or Task(run.mode, run.seed))


def make(run: Run, task: Task) -> dict[str, object]:
    """Run, and write the result.

    Args:
        run: what is run.
        task: with the weights that the run begins with; trained.
    """
    method = METHODS[run.method]
    torch.manual_seed(run.seed)
    goal = GOALS[run.metric]
    optimizer = method.make(task.parameters(), run.lr, goal.eps)
    batches, curve = task.batches(goal.rows), list[list[float]]()
    whole = run.steps >= WHOLE
    seconds, every = 0.0, run.steps // POINTS if whole else run.steps
    for step in range(1, run.steps + 1):
        began = time.process_time()
        loss = _step(task, optimizer, next(batches), run.metric, backward=not method.evaluations)
        seconds += time.process_time() - began
        if not math.isfinite(loss):
            break
        if step % every == 0 or step == run.steps:
            curve.append(_score(task, step, seconds))
    held = sum(
        value.numel() * value.element_size()
        for entry in optimizer.state.values()
        for value in entry.values()
        if isinstance(value, torch.Tensor)
    )
    finished = step == run.steps and math.isfinite(loss)
    test = task.score(task.parts.test) if finished and whole else None
    document = {
        "schema": SCHEMA,
        **dataclasses.asdict(run),
        "finished": finished,
        "curve": curve,
        "test": test,
        "probe": probe_score(),
        "seconds": seconds,
        "evaluations": method.evaluations,
        "state_bytes": held,
        "trained": sum(parameter.numel() for parameter in task.parameters()),
        "machine": machine(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "source_hash": sources(method.module),
        "command": "python -m bench.zeroth.finetune",
    }
    run.path.parent.mkdir(parents=True, exist_ok=True)
    write_text(run.path, json.dumps(document, indent=1) + "\n")
    return document


def _score(task: Task, step: int, seconds: float) -> list[float]:
    return [step, seconds, *task.score(task.parts.validation)]


def _step(
    task: Task,
    optimizer: torch.optim.Optimizer,
    index: torch.Tensor,
    metric: str,
    *,
    backward: bool,
) -> float:
    labels = task.parts.train.labels[index]

    def closure() -> torch.Tensor:
        logits = task.logits(task.parts.train, index)
        if metric == "accuracy":
            return -(logits.argmax(1) == labels).float().mean()
        return nn.functional.cross_entropy(logits, labels)

    if not backward:
        return float(optimizer.step(closure))  # type: ignore[arg-type]
    optimizer.zero_grad()
    loss = closure()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return float(loss.detach())
