"""What ``shoestring train`` does: a model, a user's texts and a budget become a trained model."""

from __future__ import annotations

import dataclasses
import datetime as dt
import functools
import hashlib
import itertools
import json
import math
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import numpy as np
import torch
import transformers

from shoestring.core.budget import Budget
from shoestring.core.errors import InputError, RefusedError, ShoestringError
from shoestring.core.profile import Profile
from shoestring.core.run_folder import Entry, Run, RunFolder
from shoestring.core.trace import Kind
from shoestring.integrations.checkpoints import checkpoints, latest, step_of, write_folder
from shoestring.integrations.interrupts import Stop
from shoestring.integrations.linear_probe import fit_last_layer
from shoestring.integrations.run_record import Recorder, timeline_of
from shoestring.integrations.text_batches import (
    BucketBatches,
    Collator,
    Encoded,
    Item,
    choose_lengths,
    encode,
    shapes,
)
from shoestring.integrations.text_data import Examples, read_examples, split_examples
from shoestring.integrations.text_metrics import chosen, metrics
from shoestring.integrations.text_models import load_model, load_tokenizer, trained_in_part
from shoestring.integrations.training_settings import Task, TextTraining
from shoestring.integrations.transformers import CheckedTrainer, PlannedTrainer
from shoestring.integrations.zeroth import ZerothTrainer
from shoestring.integrations.zeroth_training import Rates, maker, objective_of, with_rates
from shoestring.measure.counting.profiled import count_of
from shoestring.planner.plan import Plan
from shoestring.planner.planning import plan as make_plan
from shoestring.planner.profiling import profile
from shoestring.planner.run_plan import plan_of_run
from shoestring.planner.search import predict

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Tell: TypeAlias = Callable[[str], None]
Batch: TypeAlias = dict[str, torch.Tensor]

_KEPT: Final = 2
_BUCKETS: Final = 4
_LOG_LINES: Final = 200
_SAVES: Final = 10
_MEASURED: Final = 2
"""Batches at which a zeroth-order optimizer's rates are measured."""
_LONGEST: Final = 512
_COVERED: Final = 0.99
_EVAL_ROWS: Final = "rows in an evaluation"


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """How a training ended.

    Attributes:
        run: what its folder says.
        metrics: of the last evaluation.
        probe: of the evaluation of the linear probe that it began with; empty where it did not.
    """

    run: Run
    metrics: dict[str, float]
    probe: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class _Data:
    """What is trained and evaluated on."""

    train: Encoded
    held: Encoded
    names: tuple[str, ...]
    lengths: tuple[int, ...]
    rows: int
    facts: dict[str, str]


def train(
    settings: TextTraining,
    *,
    resume: bool,
    tell: Tell,
    show: Callable[[Entry], None],
    began: Callable[[int, int], None],
) -> Outcome:
    """Train a model on a user's texts within a budget.

    Args:
        settings: what to do.
        resume: go on from the newest checkpoint of the folder.
        tell: is told in sentences what was chosen.
        show: is shown every log entry.
        began: is told the step that training begins at, and the steps in all.

    Returns:
        How it ended: finished, or stopped by the user.

    Raises:
        InputError: data, model, folder or options cannot be used.
        InfeasibleError: no allowed plan meets the budget.
        NotFiniteError: the loss was not a finite number.
    """
    settings.check()
    if settings.zeroth is not None:
        maker(settings)([torch.nn.Parameter(torch.zeros(1))])  # which refuses what it does not know
    folder = RunFolder(settings.out)
    before = _before(folder, settings, resume, tell)
    transformers.set_seed(settings.seed)
    tokenizer = load_tokenizer(settings.model)
    data = _data(settings, tokenizer, tell)
    if before is not None:
        _same_data(before, data)
    transformers.set_seed(settings.seed)
    model = load_model(settings, tokenizer, data.names)
    collator = Collator(tokenizer, data.lengths, task=settings.task)
    checkpoint, faults = latest(folder.checkpoints)
    if settings.probe and checkpoint is None:
        tell(_probed(model, data, collator))
    model = trained_in_part(model, settings)
    run = before or _planned(settings, model, data, collator, folder, tell)
    if settings.zeroth is not None:
        first_batches = functools.partial(_first_batches, settings, data, collator)
        run = with_rates(settings, run, model, first_batches, checkpoint is None, tell)
    run = dataclasses.replace(run, status="running", note="")
    folder.write(run)
    stop = Stop()
    trainer = _trainer(settings, model, tokenizer, run, data, collator, folder, show, stop)
    for fault in faults:
        tell(fault)
    if checkpoint is not None:
        tell(f"going on from {checkpoint.name}")
    first = 0 if checkpoint is None else step_of(checkpoint) or 0
    folder.cut(first)
    if settings.probe and checkpoint is None and len(data.held):
        trainer.evaluate()
    began(first, run.steps)
    return _carried_out(trainer, folder, run, checkpoint, stop, tokenizer)


def _before(folder: RunFolder, settings: TextTraining, resume: bool, tell: Tell) -> Run | None:
    """Return the run that is gone on with, and refuse to overwrite one by accident."""
    if not folder.exists():
        if checkpoints(folder.checkpoints):
            raise InputError(
                f"{folder.path} holds checkpoints of something else.", hint="name another --out."
            )
        if resume:
            tell("there is nothing to go on from: beginning anew")
        return None
    if not resume:
        raise InputError(
            f"{folder.path} holds a run already.", hint="add --resume, or name another --out."
        )
    run = folder.read()
    kept = {"model": run.model, "task": run.task, "seed": str(run.seed), **run.options}
    now = {"model": settings.model, "task": settings.task, "seed": str(settings.seed)}
    for what, new in {**now, **settings.choices}.items():
        old = kept.get(what)
        if old != new:
            raise InputError(
                f"the run in {folder.path} has {what} {old}, not {new}.",
                hint="resume with the options it was begun with.",
            )
    return run


def _same_data(run: Run, data: _Data) -> None:
    """Refuse to go on with other texts, or the same in other batches."""
    for name, fact in data.facts.items():
        if run.data.get(name) != fact:
            raise InputError(
                f"the run was begun with {name} {run.data.get(name)}, and has {fact} now.",
                hint="go on with the data, --rows and --length it was begun with.",
            )


# --- what is brought ---------------------------------------------------------------------------


def _data(settings: TextTraining, tokenizer: PreTrainedTokenizerBase, tell: Tell) -> _Data:
    read = functools.partial(
        read_examples,
        task=settings.task,
        text_column=settings.text_column,
        label_column=settings.label_column,
        skip_bad=settings.skip_bad,
    )
    examples = read(settings.data)
    if settings.eval_data is None:
        train, held = split_examples(examples, share=0.1, seed=settings.seed)
    else:
        train, held = examples, read(settings.eval_data, names=examples.names)
    for part in (examples, *([held] if settings.eval_data else [])):
        for skipped in part.skipped[:5]:
            tell(f"skipped {skipped.place}: {skipped.reason}")
        if part.skipped:
            tell(f"skipped {len(part.skipped)} rows in all")
    rows = settings.batch_rows
    length = settings.length or _length(train, tokenizer, settings.task)
    encoded = encode(train, tokenizer, task=settings.task, length=length)
    unseen = encode(held, tokenizer, task=settings.task, length=length)
    if len(encoded) == 0:
        raise InputError(
            f"the texts fill no row of {length} tokens.",
            hint="give more text, or a smaller --length.",
        )
    sizes = [*encoded.sizes, *unseen.sizes]
    lengths = choose_lengths(sizes, most=_BUCKETS, longest=length)
    facts = {
        "train": f"{len(encoded):,} rows",
        "held out": f"{len(unseen):,} rows",
        "lengths": ", ".join(map(str, lengths)),
        "rows in a batch": str(rows),
        "fingerprint": _fingerprint(encoded),
    }
    if examples.names:
        facts["classes"] = ", ".join(examples.names)
    if encoded.truncated:
        facts["cut"] = f"{encoded.truncated:,} texts were longer than {length} tokens"
    if examples.skipped:
        facts["skipped"] = f"{len(examples.skipped):,} rows"
    for name, fact in facts.items():
        tell(f"{name}: {fact}")
    return _Data(encoded, unseen, examples.names, lengths, min(rows, len(encoded)), facts)


def _fingerprint(data: Encoded) -> str:
    digest = hashlib.blake2b(digest_size=6)
    for i in range(len(data)):
        digest.update(repr(sorted(data[i].items())).encode())
    return digest.hexdigest()


def _length(examples: Examples, tokenizer: PreTrainedTokenizerBase, task: Task) -> int:
    """Return a length that covers nearly all texts, within what the model takes."""
    most = min(_LONGEST, tokenizer.model_max_length)
    if task == "lm":
        return most
    counts = [len(ids) for ids in tokenizer(list(examples.texts[:2000]))["input_ids"]]
    covering = float(np.quantile(counts, _COVERED))
    return min(most, 8 * math.ceil(covering / 8))


def _batches(data: _Data, seed: int) -> BucketBatches:
    return BucketBatches(data.train, data.lengths, rows=data.rows, seed=seed)


# --- how it is run -----------------------------------------------------------------------------


def _planned(
    settings: TextTraining,
    model: PreTrainedModel,
    data: _Data,
    collator: Collator,
    folder: RunFolder,
    tell: Tell,
) -> Run:
    """Profile, plan and measure the step, and return the run as it begins."""
    model.train(settings.zeroth is None)
    batches = [
        collator(_like(data.train, rows, length))
        for rows, length in shapes(data.train, data.lengths, data.rows)
    ]
    try:
        prof = profile(
            model,
            batches[0],
            optimizer=_optimizer(settings),
            autocast=torch.bfloat16 if settings.bf16 else None,
            clip_norm=settings.clip_norm or None,
            other_batches=batches[1:],
        )
    except RefusedError as error:
        raise InputError(f"{settings.model}: {error.message}", hint=error.hint) from error
    for sentence in prof.assumptions:
        tell(sentence)
    budget = Budget(memory=settings.memory)
    plan = make_plan(prof, budget, allow=settings.allow, without=settings.without)
    for line in plan.table().splitlines():
        tell(line)
    measured: dict[str, float] = {}
    if prof.machine.device == "cpu":
        check = plan.verify(model, batches[0])
        measured = {"peak": check.measured.peak, "resident": check.measured.rss}
        tell(str(check))
    if settings.zeroth is not None:  # its rates are not known yet, and are kept by the run
        known = {k: v for k, v in plan.optimizer_options.items() if k not in ("lr", "eps")}
        plan = dataclasses.replace(plan, optimizer_options=known)
    rows = _eval_rows(prof, plan, data.rows)
    planned = predict(plan.steps, prof) or prof
    folder.write_timeline(timeline_of(prof, planned))
    count_of(planned).save(folder.count)
    return Run(
        model=settings.model,
        task=settings.task,
        command=settings.command,
        seed=settings.seed,
        started=dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        status="running",
        steps=settings.steps or math.ceil(settings.epochs * len(_batches(data, settings.seed))),
        step=0,
        machine=f"{plan.machine}: {os.cpu_count()} cores, {platform.machine()}",
        versions={**plan.versions, "transformers": transformers.__version__},
        data={"source": str(settings.data), **data.facts, _EVAL_ROWS: str(rows)},
        options=settings.choices,
        budget=plan.budget,
        plan=json.loads(plan.to_json()),
        measured=measured,
    )


def _like(data: Encoded, rows: int, length: int) -> list[Item]:
    """Return rows of the data of which the longest pads to a length."""
    sizes = data.sizes
    fitting = [i for i, size in enumerate(sizes) if size <= length]
    return [data[i] for i in sorted(fitting, key=lambda i: -sizes[i])[:rows]]


def _probed(model: PreTrainedModel, data: _Data, collator: Collator) -> str:
    """Fit the last layer of the model, and return how well that does."""
    order = BucketBatches(data.train, data.lengths, rows=data.rows, seed=0, shuffle=False)
    batches = (collator([data.train[i] for i in rows]) for rows in order)
    accuracy, rows = fit_last_layer(model, batches)
    return f"linear probe: accuracy {accuracy:.4f} on the {rows:,} rows it was fitted to"


def _first_batches(settings: TextTraining, data: _Data, collator: Collator) -> list[Batch]:
    order = itertools.islice(_batches(data, settings.seed), _MEASURED)
    return [collator([data.train[i] for i in rows]) for rows in order]


def _optimizer(settings: TextTraining) -> Callable[..., torch.optim.Optimizer]:
    if settings.zeroth is not None:
        return maker(settings)
    lr = settings.rate
    assert lr is not None
    if settings.optimizer == "sgd":
        return functools.partial(torch.optim.SGD, lr=lr, momentum=0.9)
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return functools.partial(kind, lr=lr, fused=True)


def _eval_rows(prof: Profile, plan: Plan, rows: int) -> int:
    """Return the most rows, up to those of training, whose evaluation meets the budget."""
    if plan.budget is None or prof.retrace is None:
        return rows
    state = sum(s.nbytes for s in prof.trace.storages if s.kind is Kind.OPTIMIZER)
    while rows > 1:
        trace = prof.retrace(rows=rows, optimizer=False, backward=False)
        if prof.machine.footprint(trace.peak + state) <= plan.budget:
            break
        rows //= 2
    return rows


def _trainer(
    settings: TextTraining,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    run: Run,
    data: _Data,
    collator: Collator,
    folder: RunFolder,
    show: Callable[[Entry], None],
    stop: Stop,
) -> CheckedTrainer:
    steps = run.steps
    rates = Rates.of(run.data)
    every = settings.save_every or max(1, steps // _SAVES)
    args = transformers.TrainingArguments(
        output_dir=str(folder.checkpoints),
        per_device_train_batch_size=data.rows,
        per_device_eval_batch_size=int(run.data[_EVAL_ROWS]),
        max_steps=steps,
        learning_rate=settings.rate or 0.0,
        weight_decay=0.01 if settings.zeroth is None else 0.0,
        warmup_steps=max(1, steps // 16) if settings.zeroth is None else 0,
        lr_scheduler_type="linear",
        max_grad_norm=settings.clip_norm,
        bf16=settings.bf16,
        seed=settings.seed,
        data_seed=settings.seed,
        logging_steps=max(1, steps // _LOG_LINES),
        save_strategy="steps",
        save_steps=every,
        save_total_limit=_KEPT,
        eval_strategy="steps" if len(data.held) else "no",
        eval_steps=every,
        prediction_loss_only=settings.task == "lm",
        remove_unused_columns=False,
        label_names=["labels"],
        dataloader_pin_memory=False,
        disable_tqdm=True,
        report_to=[],
        use_cpu=not torch.cuda.is_available(),
    )
    make: Callable[..., CheckedTrainer]
    if settings.zeroth is None:
        make = functools.partial(PlannedTrainer, plan=plan_of_run(run))
    else:
        make = functools.partial(
            ZerothTrainer,
            optimizer=maker(settings, rates)(model.parameters()),
            objective=objective_of(settings.maximise, settings.task),
        )
    trainer = make(
        model,
        args,
        train_dataset=data.train,
        eval_dataset=data.held if len(data.held) else None,
        data_collator=collator,
        processing_class=tokenizer,
        compute_metrics=None if settings.task == "lm" else metrics,
        preprocess_logits_for_metrics=chosen,
        callbacks=[Recorder(folder, show), stop],
        batches=_batches(data, settings.seed),
    )
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer


def _carried_out(
    trainer: CheckedTrainer,
    folder: RunFolder,
    run: Run,
    checkpoint: Path | None,
    stop: Stop,
    tokenizer: PreTrainedTokenizerBase,
) -> Outcome:
    """Train, and say in the folder how it ended."""
    first = 0 if checkpoint is None else step_of(checkpoint) or 0

    def ended(status: Literal["finished", "stopped", "failed"], note: str = "") -> Run:
        seconds = [e.values["seconds"] for e in folder.log() if "seconds" in e.values]
        measured = dict(run.measured)
        if seconds:
            measured["seconds"] = float(np.median(seconds))
        step = max(trainer.state.global_step, 0)
        if isinstance(trainer, ZerothTrainer) and step > first:
            # Every step takes as many, those before this process included.
            measured["evaluations"] = trainer.evaluations * step / (step - first)
        done = dataclasses.replace(run, status=status, note=note, step=step, measured=measured)
        folder.write(done)
        return done

    try:
        with stop.listening():
            trainer.train(None if checkpoint is None else str(checkpoint))
    except ShoestringError as error:
        ended("failed", error.message)
        raise
    except KeyboardInterrupt:
        ended("stopped", "interrupted twice; the last checkpoint stands.")
        raise
    if stop.asked and trainer.state.global_step < run.steps:
        return Outcome(ended("stopped", "interrupted; --resume goes on."), {})
    seen = [entry for entry in folder.log() if entry.kind == "eval"]
    if trainer.eval_dataset is not None and (not seen or seen[-1].step < run.steps):
        trainer.evaluate()
        seen = [entry for entry in folder.log() if entry.kind == "eval"]

    def save(target: Path) -> None:
        trainer.save_model(str(target))
        tokenizer.save_pretrained(str(target))

    write_folder(folder.model, save)
    probe = seen[0].values if seen and seen[0].step == 0 else {}
    return Outcome(ended("finished"), seen[-1].values if seen else {}, probe)
