"""An out-of-memory error becomes: what held the memory, and three plans that fit."""

from __future__ import annotations

import collections
import contextlib
import copy
import gc
import inspect
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import torch
from torch import nn

from shoestring.core.budget import Budget
from shoestring.core.errors import AssumptionWarning, ShoestringError
from shoestring.core.machine import Machine
from shoestring.core.profile import Profile
from shoestring.core.trace import Kind
from shoestring.core.units import format_bytes
from shoestring.measure import host
from shoestring.measure.timing.machines import THIS, free_memory, load_machine
from shoestring.measure.tracing.fake import Batch, map_tensors, tensors_in
from shoestring.measure.tracing.step import Loss
from shoestring.planner.figures import Row
from shoestring.planner.plan import Plan
from shoestring.planner.planning import explore
from shoestring.planner.profiling import profile

_ALLOCATOR: Final = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "std::bad_alloc",
)
_MOST_PLANS: Final = 3
_MOST_MODULES: Final = 5


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
    found by themselves; nothing is computed unless memory runs out. Then the variables of
    the functions that failed are released to have room for the explanation, and where that is
    not enough the gradients too.

    Args:
        model: the model that is trained.
        loss: as for ``profile``, where the output carries no loss.
        optimizer: class or instance; by default one that holds the model's parameters.
        memory: the budget for the plans; by default what was free as the context began, with
            what the model itself held.

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
        seen[:] = [_shapes(_bound(module, args, kwargs))]

    room = _room_now(model) if memory == "auto" else 0
    handle = model.register_forward_pre_hook(remember, with_kwargs=True)
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, ShoestringError) or not _ran_out(error):
            raise
        handle.remove()
        traceback.clear_frames(error.__traceback__)
        message, hint = _explained(model, seen, loss, optimizer, memory, room)
        raise OutOfMemoryError(message, hint=hint) from error
    finally:
        handle.remove()


def _ran_out(error: BaseException) -> bool:
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return any(text in str(error) for text in _ALLOCATOR)


def _bound(module: nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object]) -> Batch:
    """Return a call's arguments as a batch: by position, or all by keyword."""
    if not kwargs:
        return args
    if not args:
        return dict(kwargs)
    bound = inspect.signature(module.forward).bind(*args, **kwargs)
    named: dict[str, object] = {}
    for name, value in bound.arguments.items():
        if bound.signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            named.update(value)
        else:
            named[name] = value
    return named


def _shapes(batch: Batch) -> Batch:
    found = map_tensors(batch, lambda t: torch.empty_like(t, device="meta"))
    assert isinstance(found, (tuple, dict))
    return found


# --- the explanation -------------------------------------------------------------------------


def _explained(
    model: nn.Module,
    seen: list[Batch],
    loss: Loss | None,
    optimizer: Callable[..., torch.optim.Optimizer] | torch.optim.Optimizer | None,
    memory: str | int,
    room: int,
) -> tuple[str, str]:
    """Return message and hint, whatever happens."""
    if not seen:
        return (
            "memory ran out before the model was called: its weights alone, or something beside "
            "the model, took it.",
            "build it on the meta device and call shoestring.profile.",
        )
    try:
        return _explained_once(model, seen[0], loss, optimizer, memory, room)
    except Exception:  # noqa: BLE001 - too little is left, or the model cannot be traced
        # Gradients of a step that failed are of no use, and they may be what fills the memory.
        for parameter in model.parameters():
            parameter.grad = None
    try:
        return _explained_once(model, seen[0], loss, optimizer, memory, room)
    except Exception as error:  # noqa: BLE001 - torch's own error must not get lost
        words = " ".join(str(error).split())[:200]
        return (
            f"memory ran out, and the step cannot be explained: {type(error).__name__}: {words}",
            "call shoestring.profile in a process of its own.",
        )


def _explained_once(
    model: nn.Module,
    batch: Batch,
    loss: Loss | None,
    optimizer: Callable[..., torch.optim.Optimizer] | torch.optim.Optimizer | None,
    memory: str | int,
    room: int,
) -> tuple[str, str]:
    optimizer = _holder(model) if optimizer is None else optimizer
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AssumptionWarning)
        prof = profile(model, batch, loss=loss, optimizer=_whole(optimizer), machine=_sheet())
    now = (free_memory(prof.machine) or 0) + _held_by(model, optimizer)
    budget = _budget(prof, memory, max(room, now))
    made, _ = explore(prof, Budget(memory=budget))
    return _message(prof, budget), _ways(made)


def _message(prof: Profile, budget: int) -> str:
    return (
        f"memory ran out: this step needs {format_bytes(prof.footprint)}, and about "
        f"{format_bytes(budget)} is to be had.\n{held(prof)}"
    )


def _ways(made: Plan) -> str:
    """Return up to three plans that fit, the exact ones first, then the fastest."""
    own = Row(
        " + ".join(t.describe() for t in made.steps), made.predicted, True, "exact", planned=True
    )
    rows = [own] if made.steps and _within(own, made) else []
    rows += [row for row in made.pareto if _within(row, made)]
    reported = [row for row in made.rows if row.fidelity != "exact" and _within(row, made)]
    rows += sorted(reported, key=lambda row: row.figures.seconds)
    chosen = list({row.label: row for row in reversed(rows)}.values())[::-1][:_MOST_PLANS]
    if not chosen:
        return "no plan fits at this batch; halve it, or see the table of shoestring.plan."
    lines = [
        f"  {row.label.replace('... +', 'exact changes +')}: "
        f"{format_bytes(row.figures.footprint)} ({row.fidelity})"
        for row in chosen
    ]
    return "\n".join(["what fits:", *lines])


def _within(row: Row, made: Plan) -> bool:
    return made.budget is None or row.figures.footprint <= made.budget


def _holder(model: nn.Module) -> torch.optim.Optimizer | None:
    own = {id(p) for p in model.parameters()}
    for thing in gc.get_objects():
        # type() and not isinstance: that one asks __class__, which a dead proxy answers badly.
        if issubclass(type(thing), torch.optim.Optimizer) and any(
            id(p) in own for group in thing.param_groups for p in group["params"]
        ):
            found: torch.optim.Optimizer = thing
            return found
    return None


def _sheet() -> Machine:
    """Return this machine's sheet, with round rates where there is no room to measure them."""
    try:
        return load_machine()
    except (RuntimeError, MemoryError):
        # The rates only order the plans; no time is told.
        return Machine(
            name=THIS,
            title="this computer",
            device="cpu",
            memory=host.total_memory(),
            flops={"float32": 5e10},
            bandwidth=1e10,
            op_seconds=5e-6,
        )


def _whole(
    optimizer: Callable[..., torch.optim.Optimizer] | torch.optim.Optimizer | None,
) -> Callable[..., torch.optim.Optimizer] | torch.optim.Optimizer | None:
    """Return an optimizer as it is before its first step where that step made half its state."""
    if not isinstance(optimizer, torch.optim.Optimizer) or not optimizer.state:
        return optimizer
    params = [p for group in optimizer.param_groups for p in group["params"]]
    with_gradient = [p for p in params if p.requires_grad]
    kinds = {frozenset(optimizer.state.get(p, {})) for p in with_gradient}
    if len(kinds) <= 1:
        return optimizer
    fresh = copy.copy(optimizer)
    fresh.state = collections.defaultdict(dict)
    return fresh


def _room_now(model: nn.Module) -> int:
    """Return the bytes that a step on a CPU may take in all, before anything has failed.

    Once it has, the caller's own variables may still hold a part of the step, which is then
    neither free nor to be told from other data. A card is asked when it has failed.
    """
    on_cpu = all(p.device.type == "cpu" for p in model.parameters())
    return (host.free_memory() or 0) + _held_by(model, None) if on_cpu else 0


def _held_by(model: nn.Module, optimizer: object) -> int:
    """Return the bytes of weights, buffers, gradients and the optimizer's state."""
    tensors: list[torch.Tensor] = [*model.parameters(), *model.buffers()]
    tensors += [p.grad for p in model.parameters() if p.grad is not None]
    if isinstance(optimizer, torch.optim.Optimizer):
        tensors += tensors_in(list(optimizer.state.values()))
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def _budget(prof: Profile, memory: str | int, room: int) -> int:
    found = Budget(memory=memory).memory_bytes(plain_peak=prof.footprint, free=room)
    assert found is not None
    # The plain step has just failed, so it is no plan that fits.
    return max(min(found, prof.footprint - 1), 1)


def held(prof: Profile) -> str:
    """Return what is alive at a profile's peak, by kind and by module, as text.

    Args:
        prof: the profile.
    """
    trace = prof.widest
    kinds = {k: n for k, n in trace.by_kind(trace.peak_index).items() if n}
    ordered = sorted(kinds.items(), key=lambda item: -item[1])
    lines = ["held at its peak: " + ", ".join(f"{format_bytes(n)} {k.value}" for k, n in ordered)]
    modules: dict[str, dict[Kind, int]] = {}
    for index in trace.alive(trace.peak_index):
        storage = trace.storages[index]
        owned = storage.kind in (Kind.PARAMETER, Kind.BUFFER, Kind.GRADIENT, Kind.OPTIMIZER)
        path = storage.module.rpartition(".")[0] if owned else storage.module
        if storage.kind is not Kind.BATCH and storage.nbytes:
            row = modules.setdefault(path, {})
            row[storage.kind] = row.get(storage.kind, 0) + storage.nbytes
    top = sorted(modules.items(), key=lambda item: -sum(item[1].values()))[:_MOST_MODULES]
    for path, row in top:
        kind = max(row, key=row.__getitem__)
        lines.append(
            f"  {format_bytes(sum(row.values()))} by {path or 'the model itself'}, "
            f"most of it {kind.value}"
        )
    return "\n".join(lines)
