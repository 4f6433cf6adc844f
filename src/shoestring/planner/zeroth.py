"""What a step of a zeroth-order optimizer costs: forward passes, and what its moves take."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, TypeGuard

import torch
from torch import nn

from shoestring import catalog
from shoestring.core.edit import Editor
from shoestring.core.errors import InputError
from shoestring.core.fidelity import Fidelity
from shoestring.core.profile import Profile
from shoestring.core.trace import ALWAYS, Kind, Op, Phase, Storage, Trace
from shoestring.measure._torch import record_allocations
from shoestring.measure.tracing.fake import tensors_in
from shoestring.measure.tracing.step import StepOptions
from shoestring.measure.tracing.twin import MakeOptimizer
from shoestring.zeroth.engine import ZerothOrder

NO_BACKWARD: Final = "the step is forward passes alone, without a backward to change."
"""Why nothing that acts on a backward can be used on such a step."""

_MARK: Final = 7919
"""Bytes that are allocated where the loss is asked for, to be found among the events."""

_MOST: Final = 1 << 22
"""Elements of a parameter that is moved to measure; a larger one is told from a part of it."""


class Moves(NamedTuple):
    """What a step takes beside its forward passes.

    Attributes:
        evaluations: forward passes.
        trained: bytes of the parameters that are moved.
        state: bytes of the optimizer's state.
        held: bytes that are there while the loss is asked for, as of copies.
        most: the most bytes above parameters and state, while they are moved.
    """

    evaluations: int
    trained: int
    state: int = 0
    held: int = 0
    most: int = 0

    def after(self, forward: Trace) -> Trace:
        """Return the trace of the whole step.

        Args:
            forward: one forward pass without gradients.
        """
        ops = [
            dataclasses.replace(op, **op.work().times(self.evaluations)._asdict())
            for op in forward.ops
        ]
        editor = Editor(dataclasses.replace(forward, ops=tuple(ops), blocks=()))
        for size, kind in ((self.state, Kind.OPTIMIZER), (self.held, Kind.TEMPORARY)):
            if size:
                editor.add(Storage(size, kind, ALWAYS, None))
        # One pass over the weights to each place where the loss is asked for, and one back.
        passes = self.trained * (self.evaluations + 1) + self.state
        step = Op(
            "zeroth.moves",
            Phase.OPTIMIZER,
            "",
            workspace=max(self.most - self.held, 0),
            bytes_read=passes,
            bytes_written=passes,
        )
        editor.insert(len(forward.ops), step)
        return editor.trace()


def is_zeroth(
    optimizer: MakeOptimizer | torch.optim.Optimizer | None,
) -> TypeGuard[MakeOptimizer | torch.optim.Optimizer]:
    """Whether an optimizer is one of zeroth order.

    Args:
        optimizer: class, ``functools.partial``, instance, or None.
    """
    if isinstance(optimizer, functools.partial):
        return is_zeroth(optimizer.func)
    if isinstance(optimizer, type):
        return issubclass(optimizer, ZerothOrder)
    return isinstance(optimizer, ZerothOrder)


def is_forward_only(prof: Profile) -> bool:
    """Whether a profiled step is forward passes alone.

    Args:
        prof: the plain step.
    """
    return any(op.name == "zeroth.moves" for op in prof.trace.ops)


def zeroth_class(path: str) -> type[ZerothOrder] | None:
    """Return the zeroth-order optimizer of the catalogue that has a path; None where none has.

    Args:
        path: dotted; it may come from a file.
    """
    module, _, name = path.rpartition(".")
    if all(row.path != f"{module}:{name}" for row in catalog.rows()):
        return None
    found = getattr(importlib.import_module(module), name)
    return found if isinstance(found, type) and issubclass(found, ZerothOrder) else None


def fidelity_of(optimizer: ZerothOrder) -> Fidelity:
    """Return what the catalogue says of an optimizer's estimates of the gradient.

    Args:
        optimizer: of the catalogue, or a user's own.
    """
    path = f"{type(optimizer).__module__}:{type(optimizer).__qualname__}"
    found = next((row.fidelity for row in catalog.rows() if row.path == path), "")
    return Fidelity(found) if found else Fidelity.APPROXIMATE


def check_options(options: StepOptions, ddp: object) -> None:
    """Refuse what means nothing without gradients.

    Args:
        options: how the step is run.
        ddp: what gradients are to the buckets of DistributedDataParallel.

    Raises:
        InputError: an option would have no effect.
    """
    plain = StepOptions()
    for name, given in (
        ("clip_norm", options.clip_norm is not None),
        ("set_to_none", options.set_to_none != plain.set_to_none),
        ("ddp", ddp is not None),
    ):
        if given:
            raise InputError(
                f"{name}= would have no effect: a zeroth-order step makes no gradients.",
                hint="leave it out.",
            )


def moves_of(
    parameters: Iterable[nn.Parameter],
    optimizer: MakeOptimizer | torch.optim.Optimizer,
    estimates: int = 1,
) -> tuple[Moves, ZerothOrder]:
    """Measure what the moves of a step take.

    A parameter of each shape, or a part of it, is moved for real: its state, copies and temporaries
    are read from the allocator's events, and the forward passes are counted.

    Args:
        parameters: of the model, with or without data.
        optimizer: class, partial or instance of a zeroth-order optimizer.
        estimates: of a step, each of one batch.

    Returns:
        The moves, and an optimizer of that kind.

    Raises:
        InputError: nothing is trained.
    """
    trained = [p for p in dict.fromkeys(parameters) if p.requires_grad and p.numel()]
    if not trained:
        raise InputError("no parameter of the model is trained.", hint="unfreeze some of them.")
    make = _maker(optimizer)
    tiny = nn.Parameter(torch.zeros(1))
    step = _measured(make, tiny.shape, tiny.dtype)  # what a step takes whatever is trained
    known: dict[tuple[torch.Size, torch.dtype], Moves] = {}
    for parameter in trained:
        key = (parameter.shape, parameter.dtype)
        if key not in known:
            known[key] = _measured(make, *key)
    found = [known[p.shape, p.dtype] for p in trained]
    held = step.held + sum(max(m.held - step.held, 0) for m in found)
    moves = Moves(
        evaluations=step.evaluations * estimates,
        trained=sum(m.trained for m in found),
        state=sum(m.state for m in found),
        held=held,
        # Parameters are moved one after the other, beside what is held of the others.
        most=held + max(m.most - m.held for m in found),
    )
    return moves, make([tiny])


def _maker(
    optimizer: MakeOptimizer | torch.optim.Optimizer,
) -> Callable[[list[nn.Parameter]], ZerothOrder]:
    def make(params: list[nn.Parameter]) -> ZerothOrder:
        if isinstance(optimizer, torch.optim.Optimizer):
            kind = type(optimizer)
            options = optimizer.param_groups[0]
            known = {k: options[k] for k in inspect.signature(kind).parameters if k in options}
            built = kind(**{**known, "params": params})
        else:
            built = optimizer(params)
        assert isinstance(built, ZerothOrder)
        return built

    return make


def _measured(
    make: Callable[[list[nn.Parameter]], ZerothOrder], shape: torch.Size, dtype: torch.dtype
) -> Moves:
    """Move a parameter of a shape, and return what that took."""
    sizes, count = list(shape), shape.numel()
    while sizes and torch.Size(sizes).numel() > _MOST:
        longest = sizes.index(max(sizes))
        sizes[longest] = -(-sizes[longest] // 2)
    part = torch.Size(sizes)
    parameter = nn.Parameter(torch.zeros(part, dtype=dtype))
    optimizer = make([parameter])
    asked = 0

    def ask() -> float:
        nonlocal asked
        asked += 1
        torch.empty(_MARK, dtype=torch.uint8)
        return float(asked)  # two losses that differ, so that there is a step to make

    optimizer.step(ask)  # which makes the state
    asked = 0
    with record_allocations() as events:
        optimizer.step(ask)
    held, most = _read([event.nbytes for event in events])
    scale = count / part.numel()
    state = sum(t.numel() * t.element_size() for t in tensors_in(optimizer.state[parameter]))
    return Moves(
        asked, count * parameter.element_size(), *(round(scale * n) for n in (state, held, most))
    )


def _read(sizes: list[int]) -> tuple[int, int]:
    """Return what is there where the loss is asked for, and the most at once, of events."""
    alive = held = most = 0
    for size in sizes:
        if size == _MARK:
            held = max(held, alive)
        elif size != -_MARK:
            alive += size
            most = max(most, alive)
    return held, most
