"""Predicted against measured: run the changed step once, and leave no trace of it."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from shoestring.core.errors import InputError
from shoestring.core.units import format_bytes
from shoestring.measure.allocator import measure_step, standing
from shoestring.measure.fake import Batch
from shoestring.measure.rng import rng_untouched
from shoestring.measure.step import Loss, StepOptions, forward_loss
from shoestring.planner.plan import Figures, Plan


@dataclasses.dataclass(frozen=True, slots=True)
class Measurement:
    """What one real step took.

    Attributes:
        peak: most bytes alive at once, by the allocator's own events.
        static: bytes alive when the step began.
        rss: highest resident size of the process meanwhile; 0 where it is not known.
    """

    peak: int
    static: int
    rss: int


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """A prediction beside its measurement.

    Attributes:
        predicted: the plan's figures.
        measured: what the step took.
    """

    predicted: Figures
    measured: Measurement

    @property
    def error(self) -> float:
        """Relative error of the predicted peak; negative where it was too low."""
        return self.predicted.peak / self.measured.peak - 1

    def __str__(self) -> str:
        return (
            f"predicted {format_bytes(self.predicted.peak)}, measured "
            f"{format_bytes(self.measured.peak)} ({self.error:+.1%}); resident "
            f"{format_bytes(self.measured.rss)}"
        )


def verify(
    plan: Plan,
    model: nn.Module,
    batch: Batch,
    *,
    loss: Loss | None = None,
    optimizer: type[torch.optim.Optimizer] | None = None,
) -> Check:
    """Run a plan's step twice and measure the second one.

    Args:
        plan: applied for the time being where it is not.
        model: restored bitwise afterwards.
        batch: a real batch.
        loss: as for ``profile``.
        optimizer: the optimizer's class; by default the profiled one.

    Returns:
        Predicted and measured figures.

    Raises:
        InputError: model or batch hold no data, or there is no room on disk for the weights.
    """
    if any(p.is_meta for p in model.parameters()):
        raise InputError("the model has no weights to run.", hint="build it off the meta device.")
    applied = plan.applied(model)
    with rng_untouched(), _on_disk(model):
        if not applied:
            plan.apply(model)
        try:
            measured = _measure(plan, model, batch, loss, optimizer)
        finally:
            for parameter in model.parameters():
                parameter.grad = None
            if not applied:
                plan.remove(model)
    return Check(plan.predicted, measured)


def _measure(
    plan: Plan,
    model: nn.Module,
    batch: Batch,
    loss: Loss | None,
    cls: type[torch.optim.Optimizer] | None,
) -> Measurement:
    trained = [p for p in model.parameters() if p.requires_grad]
    with_step = bool(cls or plan.optimizer_path)
    optimizer = plan.optimizer(trained, cls=cls) if with_step else None
    options = StepOptions(loss=loss)

    def step() -> None:
        for parameter in trained:
            parameter.grad = None
        with plan.context():
            for part, weight in plan.split(batch):
                value, _ = forward_loss(model, part, options)
                (value if weight == 1.0 else value * weight).backward()
                del value
        if optimizer is not None:
            optimizer.step()

    try:
        step()
        found = measure_step(step, roots=lambda: standing(model, batch, optimizer))
    finally:
        close = getattr(optimizer, "close", None)
        if close is not None:
            close()
    return Measurement(found.peak, found.static, found.rss)


@contextlib.contextmanager
def _on_disk(model: nn.Module) -> Iterator[None]:
    """Keep weights, buffers and gradients on disk meanwhile, and put them back bitwise."""
    gradients = {name: p.grad for name, p in model.named_parameters()}
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    with tempfile.TemporaryDirectory(prefix="shoestring-") as folder:
        kept: dict[str, Path] = {}
        try:
            for number, (name, tensor) in enumerate(tensors.items()):
                kept[name] = Path(folder) / f"{number}.pt"
                torch.save(tensor.detach(), kept[name])
            for number, (name, gradient) in enumerate(gradients.items()):
                if gradient is not None:
                    kept["grad " + name] = Path(folder) / f"grad{number}.pt"
                    torch.save(gradient, kept["grad " + name])
        except (OSError, RuntimeError) as error:
            raise InputError(
                f"the weights cannot be kept on disk while the step runs: {error}",
                hint="free some space, or point TMPDIR at a larger disk.",
            ) from error
        for parameter in model.parameters():
            parameter.grad = None
        try:
            yield
        finally:
            with torch.no_grad():
                for name, tensor in tensors.items():
                    tensor.detach().copy_(torch.load(kept[name], weights_only=True))
            for name, parameter in model.named_parameters():
                path = kept.get("grad " + name)
                parameter.grad = None
                if path is not None:
                    old = gradients[name]
                    assert old is not None
                    parameter.grad = torch.load(path, weights_only=True).to(old.device)
