"""Zeroth-order optimizers in `shoestring train`: their rates, and what they make small."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import torch
from torch import nn

from shoestring.core.errors import InputError
from shoestring.integrations.text_metrics import macro_f1
from shoestring.zeroth.survey import survey

if TYPE_CHECKING:
    from shoestring.core.run_folder import Run
    from shoestring.integrations.training_settings import Metric, TextTraining
    from shoestring.integrations.zeroth import Objective
    from shoestring.zeroth.engine import ZerothOrder

RATE: Final = "learning rate"
RADIUS: Final = "eps"
"""Names under which a run keeps its rates."""


class Rates(NamedTuple):
    """Options of an optimizer that may be measured.

    Attributes:
        lr: learning rate.
        eps: how far apart the loss is asked for.
        evaluations: forward passes that it took to measure them.
    """

    lr: float
    eps: float
    evaluations: int = 0

    @classmethod
    def of(cls, data: Mapping[str, str]) -> Rates | None:
        """Return what a run was begun with, or None.

        Args:
            data: of the run.

        Raises:
            InputError: it is damaged.
        """
        if RATE not in data or RADIUS not in data:
            return None
        try:
            return cls(float(data[RATE]), float(data[RADIUS]))
        except ValueError as error:
            raise InputError(
                f"the run's {RATE} is no number.", hint="begin a run in another folder."
            ) from error

    def __str__(self) -> str:
        how = f", measured by {self.evaluations} forward passes" if self.evaluations else ""
        return f"{RATE} {self.lr:.2e}, {RADIUS} {self.eps:.1e}{how}"

    @property
    def facts(self) -> dict[str, str]:
        """As a run keeps them."""
        return {RATE: repr(self.lr), RADIUS: repr(self.eps)}


def maker(settings: TextTraining, rates: Rates | None = None) -> Callable[..., ZerothOrder]:
    """Return what makes the optimizer of parameters.

    Args:
        settings: of the training.
        rates: learning rate and eps; by default the optimizer's own.

    Raises:
        InputError: the optimizer has no such option.
    """
    assert settings.zeroth is not None
    kind = settings.zeroth.load()
    options: dict[str, object] = {"seed": settings.seed}
    if rates is not None:
        options |= {"lr": rates.lr, "eps": rates.eps}
    for name, value in (("q", settings.q), ("directions", settings.directions)):
        if value is not None:
            options[name] = value
    for name in options:
        if name not in inspect.signature(kind).parameters:
            raise InputError(
                f"--{name} has no effect with --optimizer {settings.optimizer}.",
                hint="leave it out.",
            )
    return functools.partial(kind, **options)


def with_rates(
    settings: TextTraining,
    run: Run,
    model: nn.Module,
    batches: Callable[[], Sequence[Mapping[str, torch.Tensor]]],
    anew: bool,
    tell: Callable[[str], None],
) -> Run:
    """Return a run with the learning rate and eps it has, measured where it begins anew.

    Measuring rounds the weights, so a run that was stopped before its first checkpoint measures
    again: then it goes on bit for bit.

    Args:
        settings: of the training.
        run: as it stands.
        model: to be trained.
        batches: makes a few of the training's.
        anew: whether there is no checkpoint to go on from.
        tell: is told what was measured.
    """
    if not anew and Rates.of(run.data) is not None:
        return run
    if settings.lr is None:
        tell("measuring the learning rate takes a few hundred forward passes")
    objective = objective_of(settings.maximise, settings.task)
    rates = measured(settings, model, batches(), objective, steps=run.steps)
    tell(str(rates))
    return dataclasses.replace(run, data={**run.data, **rates.facts})


def measured(
    settings: TextTraining,
    model: nn.Module,
    batches: Sequence[Mapping[str, torch.Tensor]],
    objective: Objective | None,
    *,
    steps: int,
) -> Rates:
    """Return the learning rate and eps of a run, measured where they were not given.

    Args:
        settings: of the training.
        model: at which the run begins; in evaluation mode afterwards.
        batches: of the training, two or more.
        objective: what is made small; None for the model's loss.
        steps: of the run.

    Raises:
        InputError: the loss does not tell them.
    """
    assert settings.zeroth is not None
    own = maker(settings)([nn.Parameter(torch.zeros(1))]).param_groups[0]
    eps = own["eps"] if settings.zeroth.rate == "own" and settings.eps is None else settings.eps
    if settings.lr is not None and eps is not None:
        return Rates(settings.lr, eps)
    model.eval()

    def closure(batch: Mapping[str, torch.Tensor]) -> torch.Tensor | float:
        outputs = model(**batch)
        return outputs.loss if objective is None else objective(outputs, batch)

    found = survey(
        model,
        [functools.partial(closure, batch) for batch in batches],
        directions=own["directions"],
        steps=steps,
        seed=settings.seed,
    )
    lr = found.lr
    if settings.zeroth.rate == "length":  # as long a step as that of descent along the slope
        lr *= (found.slope**2 + found.noise**2) ** 0.5
    return Rates(settings.lr or lr, eps or found.eps, found.evaluations)


# --- what is made small --------------------------------------------------------------------------


def objective_of(metric: Metric | None, task: str) -> Objective | None:
    """Return what a run makes small; None for the model's own loss.

    Args:
        metric: to make large, or None.
        task: ``classification`` or ``lm``.
    """
    if metric is None:
        return cross_entropies if task == "classification" else None
    return minus_accuracy if metric == "accuracy" else minus_f1


def cross_entropies(outputs: object, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return the loss of each row, from which its noise is known.

    Args:
        outputs: of a classifier.
        batch: with ``labels``.
    """
    return nn.functional.cross_entropy(_logits(outputs), batch["labels"], reduction="none")


def minus_accuracy(outputs: object, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return -1 for each row that is classified rightly, and 0 for the others.

    Args:
        outputs: of a classifier.
        batch: with ``labels``.
    """
    return -(_logits(outputs).argmax(-1) == batch["labels"]).float()


def minus_f1(outputs: object, batch: Mapping[str, torch.Tensor]) -> float:
    """Return minus the unweighted mean of the F1 of the classes that the batch has.

    Args:
        outputs: of a classifier.
        batch: with ``labels``.
    """
    return -macro_f1(_logits(outputs).argmax(-1), batch["labels"])


def _logits(outputs: object) -> torch.Tensor:
    logits = getattr(outputs, "logits", None)
    if not isinstance(logits, torch.Tensor):
        raise InputError("the model returns no logits.", hint="take a model for classification.")
    return logits
