"""A plan: which techniques change the step, and what is predicted of it. Plain data."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import platform
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import torch
from torch import nn

from shoestring.core.documents import read_document, write_text
from shoestring.core.errors import InputError, RefusedError
from shoestring.core.technique import Technique
from shoestring.measure.tracing.fake import Batch
from shoestring.measure.tracing.step import Loss
from shoestring.planner.figures import Figures, Row
from shoestring.planner.plan_file import plan_from_data
from shoestring.planner.tables import plan_html, plan_table
from shoestring.planner.verify import Check, verify
from shoestring.planner.wrapped import unwrapped
from shoestring.planner.zeroth import zeroth_class

SCHEMA: Final = "shoestring/plan/1"
_MARK: Final = "_shoestring_plan"


@dataclasses.dataclass(frozen=True)
class Plan:
    """How to run a step within a budget.

    Attributes:
        steps: the techniques, in the order in which they act.
        plain: the figures of the unchanged step.
        predicted: the figures of the changed step.
        budget: the memory budget in bytes, or None.
        refused: (technique, reason) for each that could not be used.
        pareto: rows of which none is both smaller and faster than another.
        rows: the table's rows, from the plain step to what ``allow=`` would reach.
        fingerprint: of the model's parameter names and shapes.
        optimizer_path: dotted path of the profiled optimizer's class.
        optimizer_options: its plain options.
        autocast: dtype of the profiled step's mixed precision, or empty.
        clip_norm: its gradient-norm clipping, or None.
        accumulate: its micro-batches.
        set_to_none: whether it frees gradients between steps.
        ddp: what its gradients are to the buckets of DistributedDataParallel, or empty.
        machine: name of the machine it was priced for.
        measured_on_machine: whether predictions were compared with that kind of machine.
        batch: the batch in words.
        model: name of the model's class.
        versions: of what made the plan.
    """

    steps: tuple[Technique, ...]
    plain: Figures
    predicted: Figures
    budget: int | None
    refused: tuple[tuple[str, str], ...]
    pareto: tuple[Row, ...]
    rows: tuple[Row, ...]
    fingerprint: str
    optimizer_path: str
    optimizer_options: dict[str, float | bool | str | None]
    autocast: str
    clip_norm: float | None
    accumulate: int
    set_to_none: bool
    ddp: str
    machine: str
    measured_on_machine: bool
    batch: str
    model: str
    versions: dict[str, str] = dataclasses.field(default_factory=dict)

    # --- act -----------------------------------------------------------------------------

    def apply(self, model: nn.Module) -> None:
        """Change the model in place: same object, class, state_dict keys and signature.

        Args:
            model: the model that was profiled, or one with the same parameters; of what
                DistributedDataParallel or torch.compile returned, the model inside is changed.

        Raises:
            InputError: the plan was made for another model.
            RefusedError: a plan is applied already.
        """
        from shoestring.planner.profiling import fingerprint

        model = unwrapped(model)
        if fingerprint(model) != self.fingerprint:
            raise InputError(
                f"the plan was made for another model: {type(model).__name__} has other parameter "
                f"names or shapes than the {self.model} that was profiled.",
                hint="profile this model and plan again.",
            )
        if _MARK in model.__dict__:
            raise RefusedError("a plan is applied already.", hint="call plan.remove(model) first.")
        done: list[Technique] = []
        try:
            for technique in self.steps:
                technique.apply(model)
                done.append(technique)
        except BaseException:
            for technique in reversed(done):
                technique.remove(model)
            raise
        model.__dict__[_MARK] = tuple(technique.name for technique in self.steps)

    def remove(self, model: nn.Module) -> None:
        """Undo `apply`.

        Args:
            model: a model to which this plan was applied.

        Raises:
            InputError: it was not.
        """
        model = unwrapped(model)
        if not self.applied(model):
            raise InputError("this plan is not applied to the model.", hint="apply it first.")
        for technique in reversed(self.steps):
            technique.remove(model)
        del model.__dict__[_MARK]

    def applied(self, model: nn.Module) -> bool:
        """Whether this plan is applied to a model.

        Args:
            model: the model.
        """
        marked = unwrapped(model).__dict__.get(_MARK)
        return marked == tuple(technique.name for technique in self.steps)

    def optimizer(
        self,
        params: Iterable[object],
        *,
        cls: type[torch.optim.Optimizer] | None = None,
        **options: object,
    ) -> torch.optim.Optimizer:
        """Build the optimizer of the changed step.

        Args:
            params: parameters, groups or named parameters, as for any optimizer.
            cls: its class; by default the profiled one, where it is one of ``torch.optim`` or
                of the catalogue.
            **options: of the optimizer, as in ``lr=1e-4``; otherwise the profiled ones, where
                it is of the profiled class.

        Raises:
            InputError: the class is not known.
        """
        chosen = cls or _known_optimizer(self.optimizer_path)
        merged: dict[str, object] = {}
        if f"{chosen.__module__}.{chosen.__qualname__}" == self.optimizer_path:
            known = _arguments(chosen)
            merged = {
                k: v for k, v in self.optimizer_options.items() if k in known and v is not None
            }
        built = chosen(params, **{**merged, **options})  # type: ignore[arg-type]  # the user's own
        for technique in self.steps:
            built = technique.make_optimizer(built)
        return built

    def split(self, batch: Batch) -> Iterator[tuple[Batch, float]]:
        """Yield the parts of a batch, each with the weight of its loss.

        Args:
            batch: one batch.

        Example:
            ``for part, weight in plan.split(batch): (weight * loss(part)).backward()``
        """
        parts: list[tuple[Batch, float]] = [(batch, 1.0)]
        for technique in self.steps:
            parts = [
                (piece, weight * share)
                for part, weight in parts
                for piece, share in technique.split(part)  # type: ignore[arg-type]  # any batch
            ]
        yield from parts

    @contextlib.contextmanager
    def context(self) -> Iterator[None]:
        """Return the context in which forward and backward of the changed step run."""
        with contextlib.ExitStack() as stack:
            for technique in self.steps:
                stack.enter_context(technique.context())
            yield

    def verify(
        self,
        model: nn.Module,
        batch: Batch,
        *,
        loss: Loss | None = None,
        optimizer: type[torch.optim.Optimizer] | None = None,
    ) -> Check:
        """Run the changed step and compare the measured peak with the predicted one.

        Weights, buffers, gradients and random numbers are bitwise as before afterwards; they
        wait on disk meanwhile, so no more memory is taken than by a step.

        Args:
            model: the model; the plan is applied for the time being if it is not.
            batch: a real batch.
            loss: as for ``profile``.
            optimizer: the optimizer's class; by default the profiled one.

        Returns:
            ``check.predicted``, ``check.measured`` and ``check.error``.
        """
        return verify(self, model, batch, loss=loss, optimizer=optimizer)

    # --- show and keep ---------------------------------------------------------------------

    def table(self) -> str:
        """Return the plan as text for a terminal, without colour."""
        return plan_table(self)

    def __str__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        """Return the plan for a notebook."""
        return plan_html(self)

    def to_json(self) -> str:
        """Return the plan as JSON text with a schema name."""
        data = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        data["steps"] = [{"name": t.name, "options": t.options()} for t in self.steps]
        for key in ("plain", "predicted"):
            data[key] = dataclasses.asdict(data[key])
        for key in ("pareto", "rows"):
            data[key] = [dataclasses.asdict(row) for row in data[key]]
        return json.dumps({"schema": SCHEMA, **data}, indent=1)

    def save(self, path: str | Path) -> None:
        """Write the plan to a file, whole or not at all.

        Args:
            path: where to; an existing file is replaced.
        """
        write_text(Path(path), self.to_json() + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read a plan; the file is not trusted.

        Args:
            path: a file that `save` wrote.

        Raises:
            InputError: it is no such file, and what is wrong with it.
        """
        data = read_document(Path(path), SCHEMA)
        data.pop("schema")
        return plan_from_data(data, cls)


def versions() -> dict[str, str]:
    """Return the versions of what makes a plan."""
    from shoestring import __version__

    return {
        "shoestring": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _known_optimizer(path: str) -> type[torch.optim.Optimizer]:
    zeroth = zeroth_class(path)
    if zeroth is not None:
        return zeroth
    module, _, name = path.rpartition(".")
    found = getattr(torch.optim, name, None) if module.startswith("torch.optim") else None
    if not (isinstance(found, type) and issubclass(found, torch.optim.Optimizer)):
        raise InputError(
            f"the optimizer {path or 'of the plan'!r} is not one of torch.optim or of ours.",
            hint="name its class: plan.optimizer(params, cls=MyOptimizer).",
        )
    return found


def _arguments(cls: type) -> frozenset[str]:
    import inspect

    return frozenset(inspect.signature(cls).parameters)
