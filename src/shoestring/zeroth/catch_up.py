"""Bring a worker that was away to where the others are, by the steps of their log."""

from __future__ import annotations

import dataclasses
import json

import torch
import torch.distributed as dist

from shoestring.core.errors import InputError
from shoestring.zeroth.engine import ZerothOrder
from shoestring.zeroth.log import MOST_BYTES, Log, option_of, set_options
from shoestring.zeroth.workers import Workers


def catch_up(optimizer: ZerothOrder, log: Log) -> int:
    """Make the steps of a log that an optimizer has not made yet, to the last bit.

    Without data and without a forward: a step is one pass over the weights, or a few. Rates and
    other options of the groups are those of the log in these steps, and afterwards as they were
    before; a scheduler is to be stepped as often as this returns.

    Args:
        optimizer: as it was made for the run, with the run's first weights; or with the weights
            and the state of a checkpoint.
        log: of a worker of the run.

    Returns:
        How many steps were made.

    Raises:
        InputError: the log is of another run, or does not reach from the optimizer's step on.

    Example:
        >>> from shoestring.zeroth import ZOSGD
        >>> x, y = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
        >>> there, behind = ZOSGD([x], lr=0.1), ZOSGD([y], lr=0.1)
        >>> for _ in range(5):
        ...     loss = there.step(lambda: x.square().sum())
        >>> catch_up(behind, there.log), torch.equal(x, y)
        (5, True)
    """
    own = optimizer.log
    for name in ("optimizer", "options", "shapes", "sizes", "names"):
        if json.dumps(getattr(log, name)) != json.dumps(getattr(own, name)):
            raise InputError(
                f"the log differs from this optimizer in its {name}.",
                hint="build the model and the optimizer as the run did.",
            )
    reached, end = own.start + len(own), log.start + len(log)
    if not log.start <= reached <= end:
        raise InputError(
            f"the log is of the steps {log.start} to {end}, and this optimizer is at {reached}.",
            hint="begin with a checkpoint within these, or with a log that began earlier.",
        )
    groups = optimizer.param_groups
    before = [[option_of(group, name) for name in log.names] for group in groups]
    try:
        for step in range(reached - log.start, len(log)):
            optimizer.repeat(log.deltas[step], log.settings[step])
    finally:
        for group, options in zip(groups, before, strict=True):
            set_options(group, log.names, options)
    return end - reached


def rejoin(optimizer: ZerothOrder, group: dist.ProcessGroup | None = None) -> int:
    """Bring all workers of a group to the step of the furthest; each of them calls this.

    After a group has been formed anew some have made fewer steps than others: a worker that was
    away, or one that lost the others in the middle of a step. The furthest sends the steps that are
    missing, as a log: some numbers for each step.

    Args:
        optimizer: as for `catch_up`.
        group: of torch.distributed; None for all processes.

    Returns:
        How many steps this worker made.

    Raises:
        InputError: on all workers, where one of them cannot catch up.

    Example:
        >>> from shoestring.zeroth import ZOSGD
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        >>> rejoin(ZOSGD([torch.nn.Parameter(torch.ones(3))], lr=0.1))
        0
        >>> dist.destroy_process_group()
    """
    workers, log = Workers(group), optimizer.log
    reached = log.start + len(log)
    spans = [span.tolist() for span in workers.gather(torch.tensor([log.start, reached]))]
    least, most = min(end for _, end in spans), max(end for _, end in spans)
    if least == most:
        return 0
    start, source = min((start, rank) for rank, (start, end) in enumerate(spans) if end == most)
    if start > least:
        behind = [end for _, end in spans].index(least)
        raise InputError(
            f"worker {behind} is at step {least}, and the others' logs begin at {start}.",
            hint="start it from a checkpoint that is not older than that.",
        )
    tail = _tail(log, least).to_json().encode() if workers.rank == source else b""
    text = workers.broadcast(tail, source, most_bytes=MOST_BYTES)
    made, error = 0, None
    if reached < most:
        try:
            made = catch_up(optimizer, Log.from_json(text.decode(errors="replace")))
        except InputError as refused:
            error = refused
    failed = [int(found) for found in workers.gather(torch.tensor([int(error is not None)]))]
    if error is not None:
        raise error
    if any(failed):
        raise InputError(
            f"worker {failed.index(1)} cannot catch up.", hint="its own error says why."
        )
    return made


def _tail(log: Log, start: int) -> Log:
    """Return a log from some step on."""
    first = start - log.start
    deltas, settings = log.deltas[first:], log.settings[first:]
    return dataclasses.replace(log, start=start, deltas=deltas, settings=settings)
