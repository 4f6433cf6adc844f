"""An out-of-memory error becomes: what held the memory, and three plans that fit."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import nn

from shoestring.core.budget import Budget
from shoestring.core.errors import ShoestringError
from shoestring.core.profile import Profile
from shoestring.core.trace import Kind
from shoestring.core.units import format_bytes
from shoestring.measure.fake import Batch, map_tensors
from shoestring.measure.machines import free_memory
from shoestring.measure.step import Loss
from shoestring.planner.planning import explore
from shoestring.planner.profiling import profile

_ALLOCATOR = ("can't allocate memory", "not enough memory", "out of memory")


class OutOfMemoryError(ShoestringError, MemoryError):
    """Memory ran out; the message says what held it and what would fit."""


@contextlib.contextmanager
def explain_oom(
    model: nn.Module,
    *,
    loss: Loss | None = None,
    optimizer: Callable[..., torch.optim.Optimizer] | torch.optim.Optimizer | None = None,
    memory: str | int = "auto",
) -> Iterator[None]:
    """Explain an out-of-memory error that is raised while the context lasts.

    The shapes of the model's last call and the optimizer that holds its parameters are
    found by themselves; nothing is computed unless memory runs out.

    Args:
        model: the model that is trained.
        loss: as for ``profile``, where the output carries no loss.
        optimizer: class or instance; by default one that holds the model's parameters.
        memory: the budget for the plans; by default what is free once the step has failed,
            with what the model itself holds.

    Raises:
        OutOfMemoryError: in place of torch's error, which is its cause.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(8, 8)
        >>> with explain_oom(model):
        ...     loss = model(torch.zeros(2, 8)).sum()
    """
    seen: list[Batch] = []

    def remember(module: nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object]) -> None:
        batch = dict(kwargs) if kwargs else args
        seen[:] = [_shapes(batch)]

    handle = model.register_forward_pre_hook(remember, with_kwargs=True)
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, ShoestringError) or not _ran_out(error):
            raise
        handle.remove()
        message, hint = _explain(model, seen, loss, optimizer, memory)
        raise OutOfMemoryError(message, hint=hint) from error
    finally:
        handle.remove()


def _ran_out(error: BaseException) -> bool:
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return any(text in str(error) for text in _ALLOCATOR)


def _shapes(batch: Batch) -> Batch:
    return map_tensors(batch, lambda t: torch.empty_like(t, device="meta"))


def _explain(
    model: nn.Module,
    seen: list[Batch],
    loss: Loss | None,
    optimizer: Callable[..., torch.optim.Optimizer] | torch.optim.Optimizer | None,
    memory: str | int,
) -> tuple[str, str]:
    if not seen:
        return (
            "memory ran out before the model was called: its weights alone, or something beside "
            "the model, took it.",
            "build it on the meta device and call shoestring.profile.",
        )
    prof = profile(model, seen[0], loss=loss, optimizer=optimizer or _holder(model))
    budget = _budget(prof, memory)
    made, _ = explore(prof, Budget(memory=budget))
    fitting = sorted(
        (row for row in {r.label: r for r in (*made.pareto, *made.rows)}.values() if row.fits),
        key=lambda row: row.figures.seconds,
    )
    text = (
        f"memory ran out: this step needs {format_bytes(prof.footprint)}, and "
        f"{format_bytes(budget)} is to be had.\n{held(prof)}"
    )
    if not fitting:
        return text, "no plan fits at this batch; halve it, or see the table of shoestring.plan."
    ways = "\n".join(
        f"  {row.label}: {format_bytes(row.figures.footprint)} ({row.fidelity})"
        for row in fitting[:3]
    )
    return text, f"what fits:\n{ways}"


def _holder(model: nn.Module) -> torch.optim.Optimizer | None:
    own = {id(p) for p in model.parameters()}
    for thing in gc.get_objects():
        if isinstance(thing, torch.optim.Optimizer) and any(
            id(p) in own for group in thing.param_groups for p in group["params"]
        ):
            return thing
    return None


def _budget(prof: Profile, memory: str | int) -> int:
    free = None
    if memory == "auto":
        # What the model holds now is part of the step, and so part of what it may take.
        free = (free_memory(prof.machine) or 0) + prof.static
    found = Budget(memory=memory).memory_bytes(plain_peak=prof.footprint, free=free)
    assert found is not None
    return max(found, 1)


def held(prof: Profile) -> str:
    """Return what is alive at a profile's peak, by kind and by module, as text.

    Args:
        prof: the profile.
    """
    trace = prof.widest
    kinds = {k: n for k, n in trace.by_kind(trace.peak_index).items() if n}
    lines = [
        "held at its peak: "
        + ", ".join(
            f"{format_bytes(n)} {k.value}"
            for k, n in sorted(kinds.items(), key=lambda item: -item[1])
        )
    ]
    modules: dict[str, int] = {}
    for index in trace.alive(trace.peak_index):
        storage = trace.storages[index]
        if storage.kind in (Kind.ACTIVATION, Kind.TEMPORARY):
            modules[storage.module] = modules.get(storage.module, 0) + storage.nbytes
    top = sorted(modules.items(), key=lambda item: -item[1])[:5]
    lines += [f"  {format_bytes(n)} kept by {path or 'the model itself'}" for path, n in top]
    return "\n".join(lines)
