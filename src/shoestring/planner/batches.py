"""Rows of a batch, and the same step at another number of rows."""

from __future__ import annotations

import copy
import dataclasses

import torch

from shoestring.core.errors import InputError, RefusedError
from shoestring.core.profile import Profile
from shoestring.core.trace import Phase, Trace
from shoestring.measure.tracing.fake import Batch, map_tensors
from shoestring.measure.tracing.twin import rows_of
from shoestring.measure.tracing.values import has_values


def resize(batch: Batch, rows: int) -> Batch:
    """Return a batch of the same shapes with another number of rows, without data.

    Small integers keep their values, row by row and from the first one again.

    Args:
        batch: tensor, tuple or dict.
        rows: the new size of dimension 0.
    """
    old = rows_of(batch)

    def change(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dim() == 0 or tensor.shape[0] != old:
            return tensor
        if has_values(tensor):
            return tensor[torch.arange(rows) % old]
        return torch.empty((rows, *tensor.shape[1:]), dtype=tensor.dtype, device="meta")

    return map_tensors(batch, change)


def describe_batch(batch: object) -> str:
    """Return a batch in words, as in ``input_ids 32x64 int64``.

    Args:
        batch: tensor, tuple or dict.
    """
    if isinstance(batch, torch.Tensor):
        sizes = "x".join(str(n) for n in batch.shape) or "scalar"
        return f"{sizes} {str(batch.dtype).removeprefix('torch.')}"
    if isinstance(batch, dict):
        return ", ".join(f"{key} {describe_batch(value)}" for key, value in batch.items())
    if isinstance(batch, (tuple, list)):
        return ", ".join(describe_batch(value) for value in batch)
    return type(batch).__name__


def with_row_sizes(prof: Profile) -> Profile:
    """Return the profile with each storage's bytes per row, from a trace at half the rows.

    Args:
        prof: a profile that can be traced again.

    Raises:
        RefusedError: it cannot, or the step does other things at another batch size.
    """
    trace = prof.trace
    if any(s.per_row is not None for s in trace.storages):
        return prof
    if prof.retrace is None:
        raise RefusedError(
            "the profile cannot be traced again.", hint="profile the model in this process."
        )
    try:
        other = prof.retrace(rows=half_of(trace.rows), optimizer=False, alone=True)
    except InputError as error:
        raise RefusedError(
            f"the step does not run with other rows: {error.message}", hint="keep the batch whole."
        ) from error
    first = sized_by_row(trace, other)
    return dataclasses.replace(prof, traces=(first, *prof.traces[1:]))


def half_of(rows: int) -> int:
    """Return another number of rows to learn from how sizes depend on them.

    Args:
        rows: of a batch.
    """
    return rows // 2 or 2


def sized_by_row(trace: Trace, other: Trace) -> Trace:
    """Return a trace with each storage's bytes per row, from the same step at other rows.

    Args:
        trace: one step.
        other: the step with other rows; it may lack the optimizer's part.

    Raises:
        RefusedError: the step does other things there.
    """
    same = all(a.name == b.name for a, b in zip(trace.ops, other.ops, strict=False))
    if not same or any(op.phase is not Phase.OPTIMIZER for op in trace.ops[len(other.ops) :]):
        raise RefusedError(
            "the step does other things at another batch size.", hint="profile that size itself."
        )
    # The optimizer's storages and buckets come last, and do not depend on the batch.
    storages = [copy.copy(storage) for storage in trace.storages]
    for i, storage in enumerate(storages):
        small = other.storages[i].nbytes if i < len(other.storages) else storage.nbytes
        storage.per_row = (storage.nbytes - small) / (trace.rows - other.rows)
    return dataclasses.replace(trace, storages=tuple(storages))
