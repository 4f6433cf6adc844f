"""One process of `bench.trainers`: `python -m bench.trainers_child SETTINGS`.

It plans a job, finds a batch under an enforced limit, or trains one round, and writes what
came of it as JSON to the file that the settings name.
"""

from __future__ import annotations

import dataclasses
import functools
import gc
import itertools
import json
import sys
import time
import warnings
from pathlib import Path
from typing import Final

import numpy as np
import torch
import transformers
from torch.utils.data import default_collate

import shoestring
from bench.trainers_jobs import JOBS, MAX_GRAD_NORM, RATE, Job, Row
from bench.trainers_terms import ANSWER, LEAST, SECONDS, SHARES, SLOWER, Settings
from recipes.demo_terms import limit_bytes
from recipes.limited import enforce, read_status
from shoestring.core.errors import AssumptionWarning
from shoestring.integrations.transformers import PlannedTrainer
from shoestring.measure.tracing.allocator import measure_step, standing
from shoestring.planner.planning import explore

_MEASURED_STEPS: Final = 2


class Clock(transformers.TrainerCallback):
    """Notes the processor time at the end of every step.

    Args:
        first: file for the gradients of the first step, or None.
    """

    def __init__(self, first: Path | None = None) -> None:
        self.marks: list[float] = []
        self.rows = 0
        self._first = first

    def on_train_begin(
        self,
        args: transformers.TrainingArguments,
        state: transformers.TrainerState,
        control: transformers.TrainerControl,
        **kwargs: object,
    ) -> None:
        """Begin anew: after a smaller batch was chosen, too."""
        self.marks.clear()
        self.rows = state.train_batch_size or 0

    def on_step_end(
        self,
        args: transformers.TrainingArguments,
        state: transformers.TrainerState,
        control: transformers.TrainerControl,
        **kwargs: object,
    ) -> None:
        """Note the time, and keep the gradients of the first step."""
        if not self.marks and self._first is not None:
            model, optimizer = kwargs["model"], kwargs["optimizer"]
            assert isinstance(model, torch.nn.Module)
            assert isinstance(optimizer, torch.optim.Optimizer)
            write_gradients(model, optimizer, self._first)
        self.marks.append(time.process_time())

    def seconds(self, warm_ups: int) -> list[float]:
        """Return the seconds of every step after the first ones.

        Args:
            warm_ups: steps that do not count, at least one.
        """
        return [after - before for before, after in itertools.pairwise(self.marks[warm_ups - 1 :])]


def write_gradients(model: torch.nn.Module, optimizer: torch.optim.Optimizer, path: Path) -> None:
    """Write the gradients of the first step, up to one factor, parameter by parameter.

    They are read from AdamW's state, since a plan may have freed them long ago: after one
    step the first moment is ``(1 - beta_1) g``.

    Args:
        model: the model.
        optimizer: AdamW over its parameters, after one step.
        path: file of float32.
    """
    state = getattr(optimizer, "optimizer", optimizer).state
    with path.open("wb") as file:
        for parameter in model.parameters():
            state[parameter]["exp_avg"].detach().numpy().astype(np.float32).tofile(file)


def difference(path: Path, reference: Path) -> float:
    """Return the norm of the difference of two files of gradients over that of the second.

    Args:
        path: file of float32.
        reference: another of as many.
    """
    own = np.memmap(path, dtype=np.float32, mode="r")
    base = np.memmap(reference, dtype=np.float32, mode="r")
    apart = whole = 0.0
    for start in range(0, len(base), 2**20):
        part = slice(start, start + 2**20)
        apart += float(np.square(own[part] - base[part], dtype=np.float64).sum())
        whole += float(np.square(base[part], dtype=np.float64).sum())
    return float((apart / whole) ** 0.5)


# --- what a process does ---------------------------------------------------------------------


def make_plans(job: Job, settings: Settings) -> dict[str, object]:
    """Plan for every budget, keep the plans that fit, and return what is predicted.

    Args:
        job: the job.
        settings: name the folder for the plans.
    """
    model = job.build(False).train()
    batch = default_collate(job.load(job.rows))
    adamw = functools.partial(torch.optim.AdamW, lr=RATE, weight_decay=0.0, fused=True)
    prof = shoestring.profile(model, batch, optimizer=adamw, clip_norm=MAX_GRAD_NORM)
    budgets = {
        **{f"plan-{share}": shoestring.Budget(memory=f"{share}%") for share in SHARES},
        LEAST: shoestring.Budget(memory=1),  # met by none, so that the smallest is returned
    }
    if job.seconds:
        budgets[SECONDS] = shoestring.Budget(seconds=SLOWER * prof.seconds)
    plans: dict[str, object] = {}
    for name, budget in budgets.items():
        plan, reason = explore(prof, budget)
        plan.save(Path(settings.folder).parent / f"{name}.json")
        least = name == LEAST
        plans[name] = {
            "feasible": reason is None or least,
            "budget": plan.predicted.footprint if least else plan.budget,
            "peak": plan.predicted.peak,
            "ratio": plan.predicted.seconds / plan.plain.seconds,
            "changes": [change.describe() for change in plan.steps],
        }
    return {"peak": prof.peak, "plans": plans}


def find_batch(job: Job, settings: Settings) -> dict[str, object]:
    """Let the Trainer find the largest batch that it can train on within a limit.

    Args:
        job: the job.
        settings: name the budget.
    """
    rows = job.load(settings.rows * (settings.steps + 1))
    small = [{k: v.clamp(max=1) for k, v in row.items()} for row in rows[: settings.rows]]
    train(job.build(True), small, dataclasses.replace(settings, steps=1, auto_find=False), Clock())
    gc.collect()
    enforce(limit_bytes(loaded=read_status("VmData"), budget=settings.budget))
    clock = Clock()
    train(job.build(False), rows, settings, clock)
    return {"rows": clock.rows}


def run(job: Job, settings: Settings) -> dict[str, object]:
    """Train one round, timed, and where asked train on, measured.

    Args:
        job: the job.
        settings: how.
    """
    folder = Path(settings.folder)
    timed = settings.warm_ups + settings.steps
    rows = job.load(settings.rows * timed)
    first = folder / "gradients"
    clock = Clock(first if settings.measure else None)
    model = job.build(False)
    train(model, rows, dataclasses.replace(settings, steps=timed), clock)
    answer: dict[str, object] = {"seconds": clock.seconds(settings.warm_ups), "rows": clock.rows}
    if not settings.measure:
        return answer
    reference = folder.parent / "plain-gradients"
    if not reference.exists():
        first.rename(reference)
        first = reference
    answer["gradient_error"] = difference(first, reference)
    gc.collect()
    last = Clock()
    settings = dataclasses.replace(settings, steps=_MEASURED_STEPS)
    # The whole of a short training: the second step finds the optimizer's state in place.
    measured = measure_step(
        lambda: train(model, rows, settings, last), roots=lambda: standing(model, {})
    )
    if last.rows != clock.rows:
        raise SystemExit("the measured training had another batch than the timed one.")
    return {**answer, "peak": measured.peak}


def train(
    model: transformers.PreTrainedModel, rows: list[Row], settings: Settings, clock: Clock
) -> None:
    """Train with the Trainer that the settings name, on the rows in their order.

    Args:
        model: the model.
        rows: at least as many as the steps take.
        settings: of the run.
        clock: is called at every step.
    """
    folder = Path(settings.folder)
    args = transformers.TrainingArguments(
        output_dir=str(folder / "trainer"),
        per_device_train_batch_size=settings.rows,
        max_steps=settings.steps,
        train_sampling_strategy="sequential",
        learning_rate=RATE,
        max_grad_norm=MAX_GRAD_NORM,
        gradient_checkpointing=settings.checkpointing or None,  # None is the default
        auto_find_batch_size=settings.auto_find,
        logging_strategy="no",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
    )
    if settings.plan:
        trainer: transformers.Trainer = PlannedTrainer(
            model,
            args,
            plan=shoestring.Plan.load(folder.parent / f"{settings.plan}.json"),
            train_dataset=rows,
            data_collator=default_collate,
            callbacks=[clock],
        )
    else:
        trainer = transformers.Trainer(
            model, args, train_dataset=rows, data_collator=default_collate, callbacks=[clock]
        )
    trainer.train()


VERBS: Final = {"plan": make_plans, "find": find_batch, "train": run}


def main() -> None:
    """Do what the settings in the first argument say."""
    settings = Settings.from_json(sys.argv[1])
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.simplefilter("ignore", AssumptionWarning)
    answer = VERBS[settings.verb](JOBS[settings.job], settings)
    Path(settings.folder, ANSWER).write_text(json.dumps(answer), "utf-8")


if __name__ == "__main__":
    main()
