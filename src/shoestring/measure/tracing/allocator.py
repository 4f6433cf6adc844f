"""What one training step really takes, by the account of torch's own allocator."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch

from shoestring.measure._torch import AllocatorEvent, record_allocations
from shoestring.measure.tracing.fake import Batch, tensors_in
from shoestring.measure.tracing.step import Loss, StepOptions, plain_step


@dataclasses.dataclass(frozen=True, slots=True)
class Measured:
    """The memory of one step.

    Attributes:
        peak: the most bytes alive at once.
        static: bytes of the roots when the step began.
        events: allocations and frees that were seen.
        rss: the highest resident size of the process in bytes; 0 where it is not known.
    """

    peak: int
    static: int
    events: int
    rss: int


def measure_step(
    step: Callable[[], None], *, roots: Callable[[], Iterable[torch.Tensor]]
) -> Measured:
    """Run ``step`` once and return the most bytes that were alive meanwhile.

    On a CPU ``peak = static + max_t sum_{i <= t} a_i`` over the allocator's events ``a_i``
    (negative where a block is freed) on the calling thread, workspaces of kernels included.
    On CUDA it is ``torch.cuda.max_memory_allocated``, which counts everything of the process.

    The allocator does not report that a block is freed which was allocated before any
    profiler ran. Hence ``roots`` must name what outlives the step (parameters, buffers,
    optimizer state, batch; gradients only where they are kept), as `standing` does: a root
    that is freed unseen counts until the step ends, which errs to the high side.

    Args:
        step: one whole step; call it once or twice before, so that lazily made state stands.
        roots: returns the tensors that are there when the step begins.

    Returns:
        Peak and static bytes, the number of events and the resident size.

    Raises:
        InputError: torch is too old, or another profiler is on.

    Example:
        >>> x = torch.ones(256)
        >>> measure_step(lambda: (x + x).neg_() and None, roots=lambda: [x]).peak
        2048
    """
    gc.collect()  # garbage in cycles would be freed at an arbitrary moment of the step
    standing_now = list(roots())
    cuda = {tensor.device for tensor in standing_now if tensor.device.type == "cuda"}
    if cuda:
        return _measure_cuda(step, standing_now, sorted(cuda, key=str))
    blocks = _blocks(standing_now)
    del standing_now  # the roots may be freed by the step itself
    _reset_resident()
    with record_allocations() as events:
        step()
    static = sum(blocks.values())
    return Measured(static + _highest(events, blocks), static, len(events), _resident())


def _measure_cuda(
    step: Callable[[], None], roots: list[torch.Tensor], devices: list[torch.device]
) -> Measured:
    static = sum(_blocks(roots).values())
    roots.clear()
    for device in devices:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    before = sum(_cuda_events(device) for device in devices)
    _reset_resident()
    step()
    for device in devices:
        torch.cuda.synchronize(device)
    peak = sum(torch.cuda.max_memory_allocated(device) for device in devices)
    count = sum(_cuda_events(device) for device in devices) - before
    return Measured(peak, static, count, _resident())


def _cuda_events(device: torch.device) -> int:
    stats = torch.cuda.memory_stats(device)
    return sum(stats.get(f"allocation.all.{way}", 0) for way in ("allocated", "freed"))


def _blocks(tensors: Iterable[torch.Tensor]) -> dict[int, int]:
    """Return address -> bytes of the storages under the tensors, each once."""
    blocks: dict[int, int] = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        if storage.nbytes():
            blocks[storage.data_ptr()] = storage.nbytes()
    return blocks


def _highest(events: Sequence[AllocatorEvent], blocks: Mapping[int, int]) -> int:
    """Return the highest running sum of the events, with roots alive at the start."""
    alive = dict(blocks)
    total = highest = 0
    for _, address, nbytes in events:
        if nbytes > 0:
            # A root at this address was freed unseen, or the address could not be used again.
            total += nbytes - alive.get(address, 0)
            alive[address] = nbytes
        else:
            # Blocks that are no roots and were there before were never counted.
            total -= alive.pop(address, 0)
        highest = max(highest, total)
    return highest


def standing(
    model: torch.nn.Module,
    batch: Batch,
    optimizer: torch.optim.Optimizer | None = None,
    *,
    gradients: bool = False,
) -> list[torch.Tensor]:
    """Return the tensors that are there during the whole of a plain step.

    Args:
        model: its parameters and buffers count.
        batch: its tensors count.
        optimizer: the tensors of its state count.
        gradients: whether gradients stay between steps (``set_to_none=False``).

    Returns:
        Tensors, shared ones possibly more than once.
    """
    tensors = [*model.parameters(), *model.buffers(), *tensors_in(batch)]
    if optimizer is not None:
        tensors += [t for state in optimizer.state.values() for t in tensors_in(state)]
    if gradients:
        tensors += [p.grad for p in model.parameters() if p.grad is not None]
    return tensors


def steady_step(
    model: torch.nn.Module,
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    loss: Loss | None = None,
    *,
    autocast: torch.dtype | None = None,
    clip_norm: float | None = None,
    set_to_none: bool = True,
) -> Callable[[], None]:
    """Return the plain training step that every changed step is compared with.

    It frees or zeroes the gradients of the step before, runs the model, computes the loss,
    drops the model's output as ``loss = model(**batch).loss`` does, differentiates, clips
    where asked, and steps the optimizer. The first call makes the optimizer's state.

    Args:
        model: any module; its mode is left as it is.
        batch: a tensor, a tuple of positions, or a dict of keywords.
        optimizer: an optimizer over the model's parameters.
        loss: ``f(output, batch) -> scalar``; by default the output's own loss, else its
            mean.
        autocast: dtype in which forward and loss run, or None.
        clip_norm: largest global norm of the gradients, or None.
        set_to_none: whether gradients are freed rather than zeroed.

    Returns:
        A function of no arguments that runs one step.
    """
    options = StepOptions(
        loss=loss, autocast=autocast, clip_norm=clip_norm, set_to_none=set_to_none
    )
    return functools.partial(plain_step, model, batch, optimizer, options)


def _reset_resident() -> None:
    # Linux only, and only where the kernel allows it; elsewhere the highest size since the
    # process began is reported.
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def _resident() -> int:
    with contextlib.suppress(OSError), open("/proc/self/status") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0
