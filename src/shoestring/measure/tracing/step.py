"""The training step that everything is compared with, and its trace."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

import torch
from torch import nn

from shoestring.core.errors import InputError
from shoestring.core.machine import Machine
from shoestring.core.trace import Kind, Phase, Trace
from shoestring.measure.tracing.blocks import repeated_blocks
from shoestring.measure.tracing.fake import Batch, OnCpu, output_tensors, tensors_in
from shoestring.measure.tracing.tracer import Tracer
from shoestring.measure.tracing.workspace import WorkspaceProbe

Loss: TypeAlias = Callable[[object, Batch], torch.Tensor]
CustomStep: TypeAlias = Callable[[nn.Module, Batch, torch.optim.Optimizer | None], object]

MEAN_NOTE = "the model returns no loss: the mean of its output stands in for one"


@dataclasses.dataclass(frozen=True, slots=True)
class StepOptions:
    """How a step is run.

    Attributes:
        loss: ``f(output, batch) -> scalar``; None takes the output's own loss, else the mean.
        autocast: dtype of mixed precision, or None.
        clip_norm: global gradient-norm clipping, or None.
        accumulate: micro-batches in a step.
        set_to_none: free the gradients between steps.
        custom: the user's own function of one whole step.
        backward: whether anything follows the forward, which else runs without gradients.
    """

    loss: Loss | None = None
    autocast: torch.dtype | None = None
    clip_norm: float | None = None
    accumulate: int = 1
    set_to_none: bool = True
    custom: CustomStep | None = None
    backward: bool = True

    @property
    def keeps_gradients(self) -> bool:
        """Whether gradients are there when a backward begins."""
        return self.accumulate > 1 or not self.set_to_none


def call_model(model: nn.Module, batch: Batch) -> object:
    """Call a model with a batch: a dict by keywords, a tuple by position.

    Args:
        model: the model.
        batch: tensor, tuple, list or dict.
    """
    if isinstance(batch, Mapping):
        return model(**batch)
    if isinstance(batch, (tuple, list)):
        return model(*batch)
    return model(batch)


def scalar_loss(
    output: object, batch: Batch, loss: Loss | None = None
) -> tuple[torch.Tensor, bool]:
    """Return the loss of an output, and whether it is only the mean of it.

    Args:
        output: what the model returned.
        batch: what it was called with.
        loss: the user's function; None takes ``output.loss``, a lone scalar, else the mean of
            the floating tensors of the output.

    Raises:
        InputError: there is nothing to take a gradient of.
    """
    if loss is not None:
        value, mean = loss(output, batch), False
    else:
        value, mean = _own_loss(output)
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        raise InputError(
            "the loss is not a tensor with one element.", hint="return a mean or a sum from loss=."
        )
    if torch.is_grad_enabled() and not value.requires_grad:
        raise InputError(
            "the loss depends on no trainable parameter.", hint="unfreeze one, or check loss=."
        )
    return value, mean


def _own_loss(output: object) -> tuple[torch.Tensor, bool]:
    own = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    if isinstance(own, torch.Tensor):
        return own, False
    if isinstance(output, torch.Tensor) and output.numel() == 1:
        return output, False
    found = [t for t in output_tensors(output) if t.is_floating_point() or t.is_complex()]
    found = [t for t in found if t.numel() and (t.requires_grad or not torch.is_grad_enabled())]
    if not found:
        raise InputError(
            f"no loss can be taken of an output of class {type(output).__name__}.",
            hint="pass loss=lambda output, batch: ...",
        )
    parts = [torch.view_as_real(t) if t.is_complex() else t for t in found]
    return torch.stack([t.float().mean() for t in parts]).sum(), True


def forward_loss(model: nn.Module, batch: Batch, options: StepOptions) -> tuple[torch.Tensor, bool]:
    """Run forward and loss; the output is released when this returns.

    Args:
        model: the model.
        batch: one batch.
        options: how the step is run.
    """
    with autocasting(batch, options.autocast):
        return scalar_loss(call_model(model, batch), batch, options.loss)


@contextlib.contextmanager
def autocasting(batch: Batch, dtype: torch.dtype | None) -> Iterator[None]:
    """Run under mixed precision on the batch's device, if a dtype is given.

    Args:
        batch: tells the device.
        dtype: the lower precision, or None.
    """
    if dtype is None:
        yield
        return
    device = next((t.device.type for t in tensors_in(batch)), "cpu")
    with torch.autocast(device, dtype=dtype):
        yield


def plain_step(
    model: nn.Module,
    batch: Batch,
    optimizer: torch.optim.Optimizer | None,
    options: StepOptions,
) -> None:
    """Run one whole plain step.

    Args:
        model: the model.
        batch: one batch.
        optimizer: None for forward and backward alone.
        options: how the step is run.
    """
    if options.custom is not None:
        options.custom(model, batch, optimizer)
        return
    for parameter in model.parameters():
        if options.set_to_none:
            parameter.grad = None
        elif parameter.grad is not None:
            parameter.grad.zero_()
    for _ in range(options.accumulate):
        loss, _ = forward_loss(model, batch, options)
        (loss / options.accumulate if options.accumulate > 1 else loss).backward()
        del loss
    if options.clip_norm is not None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), options.clip_norm)
    if optimizer is not None:
        optimizer.step()


@dataclasses.dataclass(frozen=True, slots=True)
class Traced:
    """What tracing one step yields.

    Attributes:
        trace: the step.
        assumptions: what had to be assumed.
    """

    trace: Trace
    assumptions: tuple[str, ...]


def trace_step(
    model: nn.Module,
    batch: Batch,
    optimizer: torch.optim.Optimizer | None,
    options: StepOptions,
    *,
    machine: Machine,
    rows: int,
    mode: contextlib.AbstractContextManager[object] | None = None,
    probe: WorkspaceProbe | None = None,
) -> Traced:
    """Trace one steady-state step of a model that may be changed by it.

    The optimizer's state is made by a step outside the trace, so that it is there from the
    start, as it is in every step but the first.

    Args:
        model: a copy, fake or real; it is trained by the step.
        batch: its batch.
        optimizer: of the copy's parameters, or None.
        options: how the step is run.
        machine: whose attention and allocator the trace follows.
        rows: rows of the batch.
        mode: the fake tensors' mode; it ends with the step, since probes need real tensors.
        probe: measures what kernels hold beside their outputs; None for none.
    """
    tracer = Tracer(probe=probe, assume_scalars=options.custom is None, faking=mode is not None)
    names = {id(p): path for path, p in model.named_parameters()}
    for path, parameter in model.named_parameters():
        tracer.register(parameter, Kind.PARAMETER, path)
    for path, buffer in model.named_buffers():
        tracer.register(buffer, Kind.BUFFER, path)
    for tensor in tensors_in(batch):
        if tensor.layout is torch.strided:
            tracer.register(tensor, Kind.BATCH, "")
    blocks = [path for path, _ in repeated_blocks(model)]
    on_cpu = OnCpu(fused_attention=machine.fused_attention, attention_dropped=tracer.random_next)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_young_garbage_only())
        stack.enter_context(mode or contextlib.nullcontext())
        stack.enter_context(_gradients_noted(model, tracer))
        stack.enter_context(tracer.watching(model, blocks))
        stack.enter_context(tracer.following_saved())
        if options.custom is not None:
            _custom(model, batch, optimizer, options.custom, tracer, names)
            mean = False
        else:
            stack.enter_context(on_cpu)
            mean = _standard(model, batch, optimizer, options, tracer, names)
    assumptions = sorted(tracer.assumed) + ([MEAN_NOTE] if mean else [])
    trace = tracer.trace(rows=rows, round_up=machine.rounded)
    return Traced(trace, tuple(assumptions))


def _standard(
    model: nn.Module,
    batch: Batch,
    optimizer: torch.optim.Optimizer | None,
    options: StepOptions,
    tracer: Tracer,
    names: Mapping[int, str],
) -> bool:
    if options.keeps_gradients:
        for path, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.grad = torch.zeros_like(parameter)
                tracer.register(parameter.grad, Kind.GRADIENT, path)
    if not options.backward:
        with tracer, torch.no_grad():
            return forward_loss(model, batch, options)[1]
    with tracer:
        loss, mean = forward_loss(model, batch, options)
        tracer.phase = Phase.BACKWARD
        loss.backward()
        tracer.phase = Phase.OPTIMIZER
        if options.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), options.clip_norm)
        if optimizer is not None:
            tracer.paused = True
            optimizer.step()
            _register_state(optimizer, tracer, names)
            tracer.paused = False
            optimizer.step()
        del loss
    return mean


def _custom(
    model: nn.Module,
    batch: Batch,
    optimizer: torch.optim.Optimizer | None,
    step: CustomStep,
    tracer: Tracer,
    names: Mapping[int, str],
) -> None:
    """Trace the second run of the user's own step: the first one makes what persists."""
    with tracer:
        tracer.paused = True
        step(model, batch, optimizer)
        if optimizer is not None:
            _register_state(optimizer, tracer, names)
        for path, parameter in model.named_parameters():
            if parameter.grad is not None:
                tracer.register(parameter.grad, Kind.GRADIENT, path)
        tracer.paused = False
        step(model, batch, optimizer)


def _register_state(
    optimizer: torch.optim.Optimizer, tracer: Tracer, names: Mapping[int, str]
) -> None:
    for parameter, state in optimizer.state.items():
        for tensor in tensors_in(state):
            tracer.register(tensor, Kind.OPTIMIZER, names.get(id(parameter), ""))


@contextlib.contextmanager
def _young_garbage_only() -> Iterator[None]:
    """Let the collector walk only what the step makes, not all that was imported before.

    It runs even where it was switched off: what it frees, it frees in the user's step too.
    """
    enabled = gc.isenabled()
    gc.enable()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        if not enabled:
            gc.disable()


@contextlib.contextmanager
def _gradients_noted(model: nn.Module, tracer: Tracer) -> Iterator[None]:
    handles = []
    for path, parameter in model.named_parameters():
        if parameter.requires_grad:

            def note(tensor: torch.Tensor, path: str = path) -> None:
                tracer.gradient(tensor, path)

            handles.append(parameter.register_post_accumulate_grad_hook(note))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
