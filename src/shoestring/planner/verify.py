"""Predicted against measured: run the changed step once, and leave no trace of it."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from shoestring.core.errors import InputError
from shoestring.core.units import format_bytes
from shoestring.measure.rng import rng_untouched
from shoestring.measure.tracing.allocator import measure_step, standing
from shoestring.measure.tracing.fake import Batch, tensors_in
from shoestring.measure.tracing.step import Loss, StepOptions, forward_loss
from shoestring.planner.figures import Figures
from shoestring.planner.wrapped import unwrapped
from shoestring.zeroth.engine import ZerothOrder

if TYPE_CHECKING:
    from shoestring.planner.plan import Plan


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
        InputError: model or batch hold no data, there is no room on disk for the weights, or
            the plan is of a step in several processes.
    """
    model = unwrapped(model)
    if plan.ddp:
        raise InputError(
            "the plan is of a step in DistributedDataParallel, and one process cannot verify it.",
            hint="verify a plan that is profiled without ddp=: the buckets come on top.",
        )
    if any(p.is_meta for p in model.parameters()):
        raise InputError("the model has no weights to run.", hint="build it off the meta device.")
    if any(t.is_meta for t in tensors_in(batch)):
        raise InputError("the batch has no data to run.", hint="make it off the meta device.")
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
    if isinstance(optimizer, ZerothOrder):
        step = _forward_only(plan, model, batch, loss, optimizer)
    else:
        step = _changed_step(plan, model, batch, loss, optimizer)
    try:
        step()
        found = measure_step(
            step, roots=lambda: standing(model, batch, optimizer, gradients=not plan.set_to_none)
        )
    finally:
        close = getattr(optimizer, "close", None)
        if close is not None:
            close()
    return Measurement(found.peak, found.static, found.rss)


def _changed_step(
    plan: Plan,
    model: nn.Module,
    batch: Batch,
    loss: Loss | None,
    optimizer: torch.optim.Optimizer | None,
) -> Callable[[], None]:
    """Return the step as it was profiled, with the plan's changes."""
    trained = [p for p in model.parameters() if p.requires_grad]
    options = _options(plan, loss)

    def backward() -> None:
        with plan.context():
            for part, weight in plan.split(batch):
                value, _ = forward_loss(model, part, options)
                share = weight / plan.accumulate
                (value if share == 1.0 else value * share).backward()
                del value

    def step() -> None:
        for parameter in trained:
            if plan.set_to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.zero_()
        for _ in range(plan.accumulate):
            backward()
        if plan.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(trained, plan.clip_norm)
        if optimizer is not None:
            optimizer.step()

    return step


def _forward_only(
    plan: Plan, model: nn.Module, batch: Batch, loss: Loss | None, optimizer: ZerothOrder
) -> Callable[[], None]:
    """Return a step of zeroth order, as it was profiled."""
    options = _options(plan, loss)

    def step() -> None:
        for _ in range(plan.accumulate):
            optimizer.estimate(lambda: forward_loss(model, batch, options)[0])
        optimizer.step()

    return step


def _options(plan: Plan, loss: Loss | None) -> StepOptions:
    autocast = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(plan.autocast)
    return StepOptions(loss=loss, autocast=autocast)


@contextlib.contextmanager
def _on_disk(model: nn.Module) -> Iterator[None]:
    """Keep weights, buffers and gradients on disk meanwhile, and put them back bitwise."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    buffers = [
        (module, name, buffer)
        for module in model.modules()
        for name, buffer in module._buffers.items()
    ]
    with tempfile.TemporaryDirectory(prefix="shoestring-") as folder:
        kept = _Kept(Path(folder))
        for name, tensor in tensors.items():
            kept.save(name, tensor)
        for name, parameter in model.named_parameters():
            # Only the file keeps a gradient: a step frees it, and so does this.
            if parameter.grad is not None:
                kept.save("grad " + name, parameter.grad)
        for parameter in model.parameters():
            parameter.grad = None
        try:
            yield
        finally:
            for module, name, buffer in buffers:
                module._buffers[name] = buffer  # a forward may have put another in its place
            with torch.no_grad():
                for name, tensor in tensors.items():
                    tensor.detach().copy_(kept.load(name))
            for name, parameter in model.named_parameters():
                parameter.grad = None
                if "grad " + name in kept.devices:
                    parameter.grad = kept.load("grad " + name)


class _Kept:
    """Tensors in files, one file each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.devices: dict[str, torch.device] = {}

    def save(self, name: str, tensor: torch.Tensor) -> None:
        path = self._folder / f"{len(self.devices)}.pt"
        # Of a view into a larger storage only its own part is wanted.
        whole = tensor.numel() * tensor.element_size() == tensor.untyped_storage().nbytes()
        try:
            torch.save(tensor.detach() if whole else tensor.detach().clone(), path)
        except (OSError, RuntimeError) as error:
            raise InputError(
                "the weights cannot be kept on disk while the step runs: "
                f"{' '.join(str(error).split())[:200]}",
                hint="free some space, or point TMPDIR at a larger disk.",
            ) from error
        self.devices[name] = tensor.device

    def load(self, name: str) -> torch.Tensor:
        path = self._folder / f"{list(self.devices).index(name)}.pt"
        found: torch.Tensor = torch.load(path, map_location="cpu", weights_only=True)
        return found.to(self.devices[name])
