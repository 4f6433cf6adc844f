"""Hugging Face's Trainer by forward passes alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import torch
import transformers
from torch import nn
from torch.utils.data import Sampler

from shoestring.core.errors import InputError
from shoestring.integrations.transformers import CheckedTrainer, Collate, Rows
from shoestring.measure.tracing.twin import rows_of
from shoestring.zeroth.engine import ZerothOrder
from shoestring.zeroth.log import Log

LOG: Final = "run.zolog"
"""Name of the log in a checkpoint and beside a saved model."""

_IGNORED: Final = -100
_CLIPPED: Final = 1.0
"""What transformers clips by where nothing was said."""

Objective: TypeAlias = Callable[[object, Mapping[str, torch.Tensor]], torch.Tensor | float]
"""Takes what the model returned and the batch; returns what is made small."""


class ZerothTrainer(CheckedTrainer):
    """A Trainer whose steps take forward passes alone, at the memory of inference.

    Every batch is an `estimate` of a zeroth-order optimizer, weighted by its loss terms, so that
    gradient accumulation takes a large batch in parts; the Trainer's own loop then makes the step.
    The model is in evaluation mode meanwhile: dropout would blur the differences of losses. No
    gradient is made, clipped or logged. Schedulers, evaluation and resuming are the Trainer's, and
    checkpoints are those of `CheckedTrainer`, with the run's log beside: `run.zolog`, of all steps
    from the first one on.

    Args:
        model: the model to train; a wrapped one (peft) is taken as it is.
        args: the Trainer's; its learning rate is not used: the optimizer has its own.
        optimizer: over the model's parameters.
        objective: what is made small, of the model's output and the batch, as in minus the
            accuracy;
            it need not be differentiable. By default the model's loss.
        train_dataset: rows of the training data.
        eval_dataset: rows of the evaluation data.
        data_collator: makes a batch of rows.
        processing_class: tokenizer, saved along.
        compute_metrics: as the Trainer's.
        preprocess_logits_for_metrics: as the Trainer's.
        callbacks: as the Trainer's.
        batches: for each training batch the rows in it, with ``set_epoch``; by default the
            Trainer shuffles.

    Attributes:
        evaluations: forward passes of training since this object was made.

    Raises:
        InputError: the optimizer is none of zeroth order, or an argument would have no effect or
            spoil the differences of losses.

    Example:
        ``ZerothTrainer(model, args, optimizer=ZOSGD(model.parameters(), lr=1e-6),
        train_dataset=rows).train()``
    """

    def __init__(
        self,
        model: nn.Module,
        args: transformers.TrainingArguments,
        *,
        optimizer: ZerothOrder,
        objective: Objective | None = None,
        train_dataset: Rows | None = None,
        eval_dataset: Rows | None = None,
        data_collator: Collate | None = None,
        processing_class: transformers.PreTrainedTokenizerBase | None = None,
        compute_metrics: Callable[[transformers.EvalPrediction], dict[str, float]] | None = None,
        preprocess_logits_for_metrics: Callable[..., torch.Tensor] | None = None,
        callbacks: Sequence[transformers.TrainerCallback] = (),
        batches: Sampler[list[int]] | None = None,
    ) -> None:
        _check(optimizer, args)
        args.max_grad_norm = 0.0  # there is no gradient to clip
        super().__init__(
            model,
            args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            data_collator=data_collator,
            processing_class=processing_class,
            compute_metrics=compute_metrics,
            preprocess_logits_for_metrics=preprocess_logits_for_metrics,
            callbacks=callbacks,
            batches=batches,
        )
        self.optimizer = optimizer
        self.evaluations = 0
        # The Trainer wraps its optimizer, and the wrapper hides what is not every optimizer's.
        self._zeroth = optimizer
        self._objective = objective
        self._earlier: Log | None = None

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Ask for the losses of one batch; the Trainer makes the step.

        Args:
            model: the wrapped model.
            inputs: one batch.
            num_items_in_batch: terms of the loss in all batches of a step; each batch counts its
                own.

        Returns:
            The batch's part of the step's loss.
        """
        model.eval()
        batch = self._prepare_inputs(inputs)
        terms = self._terms(batch)
        loss = 0.0
        if terms:  # a batch whose labels are all ignored has no loss

            def ask() -> torch.Tensor | float:
                self.evaluations += 1
                return self._asked(model, batch)

            loss = self._zeroth.estimate(ask, weight=terms)
        parts = self.current_gradient_accumulation_steps
        return torch.tensor(loss / parts, device=self.args.device)

    def _asked(self, model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor | float:
        """Return what is made small, of one batch."""
        if self._objective is not None:
            return self._objective(model(**batch), batch)
        loss = self.compute_loss(model, dict(batch))  # the Trainer may take the labels out
        assert isinstance(loss, torch.Tensor)
        return loss

    def _terms(self, batch: Mapping[str, torch.Tensor]) -> int:
        """Return of how many terms the loss of a batch is the mean."""
        labels = batch.get("labels")
        if labels is None or labels.is_floating_point():
            return rows_of(batch)
        shifted = self._objective is None and self._loss_shifts_labels
        counted = labels[..., 1:] if shifted else labels
        return int((counted != _IGNORED).sum())

    def _get_grad_norm(self, model: nn.Module, grad_norm: object = None) -> None:
        """Return None: there are no gradients."""

    # --- the log -----------------------------------------------------------------------------

    @property
    def zolog(self) -> Log:
        """The log of all steps, those before a checkpoint that was gone on from included."""
        log = self._zeroth.log
        return log if self._earlier is None else _joined(self._earlier, log)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model, and the log beside it.

        Args:
            output_dir: folder; that of the Trainer's arguments by default.
        """
        super().save_model(output_dir, _internal_call)
        if self.args.should_save:
            self.zolog.save(Path(output_dir or str(self.args.output_dir)) / LOG)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Load what a checkpoint holds; the Trainer begins anew in silence where it lacks some."""
        if checkpoint is None:
            return
        for name in ("optimizer.pt", "scheduler.pt"):
            if not (Path(checkpoint) / name).is_file():
                raise InputError(
                    f"{checkpoint} has no {name}.",
                    hint="go on from a whole checkpoint; integrations.checkpoints.latest finds it.",
                )
        super()._load_optimizer_and_scheduler(checkpoint)
        self._earlier = Log.load(Path(checkpoint) / LOG)
        _joined(self._earlier, self._zeroth.log)


def _joined(before: Log, after: Log) -> Log:
    """Return the log of steps that went on, as one."""
    kept = ("optimizer", "options", "shapes", "sizes", "names")
    follows = before.start + len(before) == after.start
    if not follows or any(_plain(getattr(before, n)) != _plain(getattr(after, n)) for n in kept):
        raise InputError(
            f"the checkpoint's {LOG} is of another run.",
            hint="go on with the optimizer, its options and the parameters it was begun with.",
        )
    return dataclasses.replace(
        before,
        deltas=[*before.deltas, *after.deltas],
        settings=[*before.settings, *after.settings],
    )


def _plain(value: object) -> object:
    """Return a value as a document gives it back: pairs of numbers are lists there."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value


def _check(optimizer: ZerothOrder, args: transformers.TrainingArguments) -> None:
    """Refuse what would have no effect, or spoil the differences of losses."""
    if not isinstance(optimizer, ZerothOrder):
        raise InputError(
            f"{type(optimizer).__name__} is no zeroth-order optimizer.",
            hint="take one of shoestring.zeroth, as in ZOSGD(model.parameters(), lr=1e-6).",
        )
    low = "the difference of two losses drowns in the rounding of mixed precision"
    for given, sentence, hint in (
        (
            optimizer.param_groups[0]["pending"],
            "with pending=True a checkpoint would be of perturbed weights",
            "make the optimizer without it.",
        ),
        (args.bf16 or args.fp16, low, "leave out bf16= and fp16=, or load the model in bfloat16."),
        (
            args.weight_decay,
            "the Trainer's weight_decay= would have no effect on an optimizer that is given",
            "give it to the optimizer.",
        ),
        (
            args.max_grad_norm not in (None, 0.0, _CLIPPED),
            "max_grad_norm= would have no effect: there is no gradient to clip",
            "leave it out.",
        ),
        (
            args.gradient_checkpointing,
            "gradient_checkpointing= would have no effect: nothing is kept for a backward",
            "leave it out.",
        ),
        (
            args.world_size > 1 or args.fsdp or args.deepspeed,
            "the Trainer's processes would each take a step of their own",
            "train in one process; of several, the optimizer's exchange= makes one.",
        ),
    ):
        if given:
            raise InputError(f"{sentence}.", hint=hint)
