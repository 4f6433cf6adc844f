"""Hugging Face's Trainer, each of whose steps runs as a plan says."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

import torch
import transformers
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers.trainer_utils import TrainOutput

from shoestring.core.errors import InputError
from shoestring.integrations.checkpoints import write_checkpoint
from shoestring.integrations.nonfinite import NotFiniteError, first_module, first_parameter
from shoestring.optim.taken import TakenGradient

if TYPE_CHECKING:
    from shoestring.planner.plan import Plan

Collate: TypeAlias = Callable[..., dict[str, torch.Tensor]]
Rows: TypeAlias = Dataset[object] | Sequence[object]


class CheckedTrainer(transformers.Trainer):
    """A Trainer that can be relied on: its checkpoints are whole, and its losses are numbers.

    A checkpoint is complete or absent, and a loss or weight that is not finite stops the training
    before it reaches a checkpoint.

    Args:
        model: the model to train; a wrapped one (peft) is taken as it is.
        args: the Trainer's.
        train_dataset: rows of the training data.
        eval_dataset: rows of the evaluation data.
        data_collator: makes a batch of rows.
        processing_class: tokenizer, saved along.
        compute_metrics: as the Trainer's.
        preprocess_logits_for_metrics: as the Trainer's.
        callbacks: as the Trainer's.
        batches: for each training batch the rows in it, with ``set_epoch``; by default the
            Trainer shuffles.
    """

    def __init__(
        self,
        model: nn.Module,
        args: transformers.TrainingArguments,
        *,
        train_dataset: Rows | None = None,
        eval_dataset: Rows | None = None,
        data_collator: Collate | None = None,
        processing_class: transformers.PreTrainedTokenizerBase | None = None,
        compute_metrics: Callable[[transformers.EvalPrediction], dict[str, float]] | None = None,
        preprocess_logits_for_metrics: Callable[..., torch.Tensor] | None = None,
        callbacks: Sequence[transformers.TrainerCallback] = (),
        batches: Sampler[list[int]] | None = None,
    ) -> None:
        args.logging_nan_inf_filter = False  # it would show the last finite loss instead
        super().__init__(
            model,
            args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            data_collator=data_collator,
            processing_class=processing_class,
            compute_metrics=compute_metrics,
            preprocess_logits_for_metrics=preprocess_logits_for_metrics,
            callbacks=list(callbacks),
        )
        self._batches = batches
        self._staging: Path | None = None

    @property
    def _module(self) -> nn.Module:
        assert isinstance(self.model, nn.Module)
        return self.model

    def get_train_dataloader(self) -> DataLoader[object]:
        """Return the batches of an epoch, those of ``batches=`` where it was given."""
        if self._batches is None:
            return super().get_train_dataloader()
        loader: DataLoader[object] = DataLoader(
            cast("Dataset[object]", self.train_dataset),
            batch_sampler=self._batches,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
        )
        return cast("DataLoader[object]", self.accelerator.prepare(loader))

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, object]:
        """Return the loss of a batch, once it is known to be a finite number.

        Args:
            model: the wrapped model.
            inputs: one batch.
            return_outputs: return the model's output too.
            num_items_in_batch: terms of the loss in all batches of a step.

        Raises:
            NotFiniteError: it is not; says at which step and module that began.
        """
        found = super().compute_loss(
            model, inputs, return_outputs=return_outputs, num_items_in_batch=num_items_in_batch
        )
        loss = found[0] if isinstance(found, tuple) else found
        if torch.is_grad_enabled() and not bool(torch.isfinite(loss)):
            self._explain(model, inputs, float(loss))
        return found

    def _explain(self, model: nn.Module, inputs: Mapping[str, object], loss: float) -> None:
        step = self.state.global_step + 1
        parameter = first_parameter(model)
        where = (
            f"parameter {parameter!r} holds such values since the step before"
            if parameter
            else f"it began in module {first_module(model, inputs)!r} with this batch"
        )
        raise NotFiniteError(
            f"the loss is {loss} in step {step}: {where}.",
            hint="lower the learning rate or clip gradients; --resume goes on from the last "
            "checkpoint, which is whole.",
        )

    # --- checkpoints -------------------------------------------------------------------------

    def _save_checkpoint(self, model: nn.Module, trial: object) -> None:
        """Write a checkpoint aside and give it its name when it is whole."""
        parameter = first_parameter(self._module)
        if parameter:
            raise NotFiniteError(
                f"parameter {parameter!r} is not finite after step {self.state.global_step}; "
                "no checkpoint was written.",
                hint="lower the learning rate or clip gradients, and go on from the last one.",
            )

        def save(target: Path) -> None:
            with self._saving_to(target.parent):
                super(CheckedTrainer, self)._save_checkpoint(model, trial)

        limit = self.args.save_total_limit
        write_checkpoint(
            Path(str(self.args.output_dir)), self.state.global_step, save, keep=limit or 10**9
        )

    @contextlib.contextmanager
    def _saving_to(self, folder: Path) -> Iterator[None]:
        self._staging = folder
        try:
            yield
        finally:
            self._staging = None

    def _get_output_dir(self, trial: object) -> str:
        """Return where the Trainer puts its checkpoints just now."""
        if self._staging is not None:
            return str(self._staging)
        return str(super()._get_output_dir(trial))


class PlannedTrainer(CheckedTrainer):
    """A Trainer that runs every training step as a plan says.

    The plan is applied to the model while `train` runs. Everything else is that of
    `CheckedTrainer`.

    Args:
        model: the model that was profiled; a wrapped one (peft) is taken as it is.
        args: the Trainer's; precision, clipping and accumulation must be those of the profile.
        plan: how to run a step.
        train_dataset: rows of the training data.
        eval_dataset: rows of the evaluation data.
        data_collator: makes a batch of rows.
        processing_class: tokenizer, saved along.
        compute_metrics: as the Trainer's.
        preprocess_logits_for_metrics: as the Trainer's.
        callbacks: as the Trainer's.
        batches: for each training batch the rows in it, with ``set_epoch``; by default the
            Trainer shuffles.

    Raises:
        InputError: the plan was made for another precision, clipping or accumulation.

    Example:
        ``PlannedTrainer(model, args, plan=plan, train_dataset=rows).train()``
    """

    def __init__(
        self,
        model: nn.Module,
        args: transformers.TrainingArguments,
        *,
        plan: Plan,
        train_dataset: Rows | None = None,
        eval_dataset: Rows | None = None,
        data_collator: Collate | None = None,
        processing_class: transformers.PreTrainedTokenizerBase | None = None,
        compute_metrics: Callable[[transformers.EvalPrediction], dict[str, float]] | None = None,
        preprocess_logits_for_metrics: Callable[..., torch.Tensor] | None = None,
        callbacks: Sequence[transformers.TrainerCallback] = (),
        batches: Sampler[list[int]] | None = None,
    ) -> None:
        _check(plan, args)
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
        self.plan = plan

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: object = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """Train with the plan applied.

        Args:
            resume_from_checkpoint: as the Trainer's.
            trial: as the Trainer's.
            ignore_keys_for_eval: as the Trainer's.
        """
        applied = self.plan.applied(self._module)
        if not applied:
            self.plan.apply(self._module)
        try:
            return super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)
        finally:
            close = getattr(getattr(self.optimizer, "optimizer", self.optimizer), "close", None)
            if close is not None:
                close()
            if not applied:
                self.plan.remove(self._module)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Build the plan's optimizer with the Trainer's learning rate and weight decay.

        Args:
            model: whose parameters are trained; the Trainer's own by default.
        """
        if self.optimizer is None:
            source = self._module if model is None else model
            decayed = set(self.get_decay_parameter_names(source))
            named = [(n, p) for n, p in source.named_parameters() if p.requires_grad]
            groups = [
                {
                    "params": [p for n, p in named if (n in decayed) == decay],
                    "weight_decay": self.args.weight_decay if decay else 0.0,
                }
                for decay in (True, False)
            ]
            kind = getattr(torch.optim, self.plan.optimizer_path.rpartition(".")[2])
            known = inspect.signature(kind).parameters
            options: dict[str, object] = {"lr": self.args.learning_rate}
            if "betas" in known:
                options["betas"] = (self.args.adam_beta1, self.args.adam_beta2)
                options["eps"] = self.args.adam_epsilon
            groups = [group for group in groups if group["params"]]
            self.optimizer = self.plan.optimizer(groups, cls=kind, **options)
        return self.optimizer

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Run forward and backward as the plan says.

        Args:
            model: the wrapped model.
            inputs: one batch.
            num_items_in_batch: terms of the loss in all batches of a step.

        Returns:
            The loss, detached.
        """
        with self.plan.context():
            parts = list(self.plan.split(inputs))
            if len(parts) == 1:
                return super().training_step(model, inputs, num_items_in_batch)
            model.train()
            losses = []
            for part, weight in parts:
                assert isinstance(part, dict)
                with self.compute_loss_context_manager():
                    loss = self.compute_loss(model, self._prepare_inputs(part))
                assert isinstance(loss, torch.Tensor)
                loss = loss * weight
                self.accelerator.backward(loss)
                losses.append(loss.detach())
            return torch.stack(losses).sum()

    def _get_grad_norm(self, model: nn.Module, grad_norm: object = None) -> object:
        """Return the norm of the gradients; None where they were used in backward."""
        if any(isinstance(p.grad, TakenGradient) for p in model.parameters()):
            return None
        norm = cast("Callable[..., object]", super()._get_grad_norm)
        return norm(model, grad_norm=grad_norm)


def _check(plan: Plan, args: transformers.TrainingArguments) -> None:
    """Refuse a plan that was made for another kind of step."""
    clip = args.max_grad_norm or None
    several = args.world_size > 1 and not args.fsdp  # sharded models have no buckets
    precision = "bfloat16" if args.bf16 else "float16" if args.fp16 else ""
    for what, planned, wanted in (
        ("max_grad_norm", plan.clip_norm, clip),
        ("precision", plan.autocast or "float32", precision or "float32"),
        ("gradient_accumulation_steps", plan.accumulate, args.gradient_accumulation_steps),
        ("processes", "several" if plan.ddp else "one", "several" if several else "one"),
    ):
        if planned != wanted:
            raise InputError(
                f"the plan was made for {what} {planned}, and the training has {wanted}.",
                hint="give shoestring.profile what TrainingArguments says: clip_norm=, autocast=, "
                "accumulate=, ddp=.",
            )
    if not plan.optimizer_path.startswith("torch.optim"):
        raise InputError(
            "the plan was made for a step without one of torch's optimizers.",
            hint="give shoestring.profile an optimizer=.",
        )
