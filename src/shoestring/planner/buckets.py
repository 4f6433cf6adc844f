"""What DistributedDataParallel holds beside the step of one process: buckets of gradients."""

from __future__ import annotations

import dataclasses
from typing import Final, Literal, TypeAlias

from shoestring.core.edit import Editor, remap
from shoestring.core.machine import Machine
from shoestring.core.trace import ALWAYS, Kind, Phase, Storage, Trace

Buckets: TypeAlias = Literal["copies", "views"]

BUCKETS: Final[tuple[Buckets, ...]] = ("copies", "views")
"""Gradients are copied into the buckets, or are views of them."""


def with_buckets(
    trace: Trace,
    buckets: Buckets | None,
    machine: Machine,
    *,
    unused: int = 0,
    set_to_none: bool = True,
) -> Trace:
    """Return the step of one of several processes that average their gradients.

    DistributedDataParallel keeps as many bytes as all trainable parameters have, from one step
    to the next, in which it sends gradients. With ``gradient_as_bucket_view=True`` a gradient
    lies there once it is complete, else beside.

    Args:
        trace: the step of one process by itself.
        buckets: what gradients are to the buckets; None where there are none.
        machine: rounds sizes as its allocator does.
        unused: bytes of trainable parameters that get no gradient.
        set_to_none: whether gradients are freed between steps. The first of several backward
            passes then makes them beside the buckets, where the last one puts them.
    """
    if buckets is None or not trace.accumulated:
        return trace
    editor = Editor(trace)
    if buckets == "copies":
        total = sum(trace.storages[index].nbytes for index in trace.accumulated) + unused
        editor.add(Storage(machine.rounded(total), Kind.GRADIENT, ALWAYS, None))
        return editor.trace()
    if unused:
        editor.add(Storage(machine.rounded(unused), Kind.GRADIENT, ALWAYS, None))
    if not set_to_none:  # gradients stay from step to step, in their buckets
        return editor.trace()
    lasting: dict[int, int] = {}
    for index, done in trace.accumulated.items():
        fresh = trace.storages[index]
        lasting[index] = editor.add(dataclasses.replace(fresh, birth=ALWAYS, death=None))
        editor.storages[index] = dataclasses.replace(fresh, death=done)
    for number, op in enumerate(trace.ops):
        if op.phase is Phase.OPTIMIZER and not lasting.keys().isdisjoint(op.reads):
            editor.replace(number, remap(op, lasting))
    return editor.trace()
