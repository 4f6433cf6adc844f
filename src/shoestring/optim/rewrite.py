"""What a step costs once its optimizer works slice by slice, or during backward."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final, TypeAlias

import torch

from shoestring.core.edit import Editor
from shoestring.core.machine import Machine
from shoestring.core.profile import Step
from shoestring.core.trace import ALWAYS, Kind, Op, Phase, Trace, Work, last_use, total
from shoestring.optim.sliced import slice_elements

SUPPORTED: Final = {
    "torch.optim.adam.Adam": "Adam",
    "torch.optim.adamw.AdamW": "AdamW",
    "torch.optim.sgd.SGD": "SGD",
}
"""Dotted path of a class, as in `Step.optimizer` -> its name."""

Placed: TypeAlias = tuple[int, int, Op]
"""An inserted operation: the operation it follows, the gradient it uses, and itself."""

_UPDATE: Final = "aten.add_.Tensor"
"""What the kernels of a slice's update are priced as."""


@dataclasses.dataclass(frozen=True, slots=True)
class Recipe:
    """What torch's routine does to one slice.

    Attributes:
        temporaries: most tensors of the slice's size that are alive beside its inputs.
        kernels: how many kernels run.
    """

    temporaries: int
    kernels: int


def recipe(step: Step) -> Recipe:
    """Return what the update of a supported optimizer does to a slice.

    Args:
        step: names the optimizer and its options.
    """
    name = SUPPORTED[step.optimizer]
    options = step.optimizer_options
    if options.get("fused"):
        return Recipe(0, 1)
    negated = int(bool(options.get("maximize")))
    decays = int(bool(options.get("weight_decay")))
    if name == "SGD":
        nesterov = int(bool(options.get("nesterov")))
        momentum = 2 * int(bool(options.get("momentum")))
        most = max(negated, decays * (negated + 1), nesterov * (max(negated, decays) + 1))
        return Recipe(most, 1 + negated + decays + momentum + nesterov)
    added = int(name == "Adam" and decays and not options.get("decoupled_weight_decay"))
    amsgrad = int(bool(options.get("amsgrad")))
    # The root and its quotient are alive together, and so is a gradient that had to be
    # copied to be negated or to have the decay added.
    return Recipe(2 + max(negated, added), 8 + negated + decays + amsgrad)


def sliced(trace: Trace, step: Step, machine: Machine) -> Trace:
    """Return the step whose optimizer works slice by slice.

    Args:
        trace: the plain step.
        step: names the optimizer.
        machine: prices the slices.
    """
    start, stop = update_span(trace)
    placed = [(stop - 1, grad, op) for grad, op in _updates(trace, step, machine, start, stop)]
    return _rebuilt(trace, start, stop, placed, released=False)


def released(trace: Trace, step: Step, machine: Machine) -> Trace:
    """Return the step whose optimizer consumes each gradient as it arises.

    Args:
        trace: the plain step.
        step: names the optimizer.
        machine: prices the slices.
    """
    start, stop = update_span(trace)
    placed = [
        (trace.accumulated.get(grad, stop - 1), grad, op)
        for grad, op in _updates(trace, step, machine, start, stop)
    ]
    return _rebuilt(trace, start, stop, placed, released=True)


def update_span(trace: Trace) -> tuple[int, int]:
    """Return the operations in which parameters are updated: the first, and one past the last.

    Clipping by the global norm comes before, in the same phase; it touches gradients only.

    Args:
        trace: a step.
    """
    updated = (Kind.PARAMETER, Kind.OPTIMIZER)
    stop = len(trace.ops)
    start = next(
        (
            i
            for i, op in enumerate(trace.ops)
            if op.phase is Phase.OPTIMIZER
            and any(trace.storages[s].kind in updated for s in (*op.reads, *op.writes))
        ),
        stop,
    )
    while start and trace.ops[start - 1].phase is Phase.OPTIMIZER:
        if "neg" not in trace.ops[start - 1].name:
            break
        start -= 1  # maximize=True negates the gradients first
    return start, stop


def _updates(
    trace: Trace, step: Step, machine: Machine, start: int, stop: int
) -> list[tuple[int, Op]]:
    """Return one operation a gradient, in the order in which the plain step reads them."""
    does = recipe(step)
    touched = list(last_use(trace.ops, start, stop))
    grads = [i for i in touched if trace.storages[i].kind is Kind.GRADIENT]
    whole = sum(trace.storages[i].nbytes for i in grads) or 1
    plain = total(trace.ops[start:stop])
    owned: dict[str, list[int]] = {}
    for i in touched:
        if trace.storages[i].kind in (Kind.PARAMETER, Kind.OPTIMIZER):
            owned.setdefault(trace.storages[i].module, []).append(i)
    updates = []
    for grad in grads:
        storage = trace.storages[grad]
        dtype = _dtype(trace.ops[start:stop], grad)
        limit = slice_elements(machine.device) * getattr(torch, dtype).itemsize
        work = plain.times(storage.nbytes / whole)
        launches = does.kernels * max(1, -(-storage.nbytes // limit))
        tensors = tuple(owned.get(storage.module, ()))
        op = Op(
            name="shoestring.sliced_update",
            phase=Phase.OPTIMIZER,
            module=storage.module.rpartition(".")[0],
            reads=(*tensors, grad),
            writes=tensors,
            workspace=does.temporaries * machine.rounded(min(storage.nbytes, limit)),
            dtype=dtype,
            seconds=machine.price(_UPDATE, Phase.OPTIMIZER, dtype, work).memory
            + launches * machine.price(_UPDATE, Phase.OPTIMIZER, dtype, Work()).cost,
            **work._asdict(),
        )
        updates.append((grad, op))
    return updates


def _dtype(ops: Sequence[Op], grad: int) -> str:
    return next((op.dtype for op in ops if grad in op.reads), "float32")


def _rebuilt(trace: Trace, start: int, stop: int, placed: list[Placed], *, released: bool) -> Trace:
    """Return the trace without operations [start, stop) and with those placed instead."""
    editor = Editor(trace)
    consumed = {grad: editor.insert(index + 1, op) for index, grad, op in placed}
    for index in range(start, stop):
        editor.drop(index)
    end = max(consumed.values(), default=start - 1)
    still = last_use(trace.ops, 0, start)
    for index, storage in enumerate(trace.storages):
        if start <= storage.birth < stop:
            editor.drop_storage(index)  # a temporary of the old update
            continue
        death = storage.death
        if released and index in consumed:
            # Nothing holds a gradient once it is used, but what reads it in a later operation.
            after = trace.accumulated.get(index, stop)
            death = still[index] if still.get(index, ALWAYS) > after else consumed[index]
        elif death is not None and death >= start:
            death = end
        editor.storages[index] = dataclasses.replace(storage, death=death)
    return editor.trace()
