"""One training step as data: what ran, what was alive, and for how long.

A trace is a list of operations in the order they ran, and a list of storages, each alive
from the operation that made it to the operation after which it died. Views and aliases share
one storage, so bytes are never counted twice. Every technique predicts by turning one trace
into another; this module knows no torch.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np

ALWAYS: Final = -1
"""The birth of a storage that is there before the step begins."""


class Kind(enum.StrEnum):
    """What a storage holds."""

    PARAMETER = "parameters"
    BUFFER = "buffers"
    GRADIENT = "gradients"
    OPTIMIZER = "optimizer state"
    BATCH = "batch"
    ACTIVATION = "saved activations"
    TEMPORARY = "temporaries"


class Phase(enum.StrEnum):
    """The part of the step in which an operation ran."""

    FORWARD = "forward"
    RECOMPUTE = "recompute"
    BACKWARD = "backward"
    OPTIMIZER = "optimizer"


class Work(NamedTuple):
    """What one operation or several compute and move; the fields are those of `Op`."""

    flops: int = 0
    macs: int = 0
    elementwise: int = 0
    bytes_read: int = 0
    bytes_written: int = 0

    def plus(self, other: Work) -> Work:
        """Return the sum.

        Args:
            other: more of it.
        """
        return Work(*map(operator.add, self, other))

    def times(self, factor: float) -> Work:
        """Return a multiple, rounded.

        Args:
            factor: of each figure.
        """
        return Work(*(round(factor * n) for n in self))


@dataclasses.dataclass(slots=True)  # not frozen: a trace has 10,000s, and freezing costs 3x
class Op:
    """One operation of the step; a value, never changed once made.

    Attributes:
        name: the torch operator, as in ``aten.mm.default``.
        phase: when it ran.
        module: dotted path of the module it ran in; for a backward operation the path of
            the module whose forward it differentiates; empty for the top.
        reads: storages it read, writes included.
        writes: storages it changed in place.
        workspace: bytes its kernel held beside inputs and outputs while it ran.
        flops: floating point operations of contractions (2 per multiply-add) and of algorithms
            such as a Fourier transform; scalar operations of other kinds are not among them.
        macs: multiply-adds of contractions.
        elementwise: scalar operations of everything that works element by element.
        bytes_read: bytes of its inputs, each read once.
        bytes_written: bytes of its outputs.
        dtype: name of the widest floating type among its tensors, as in ``float32``.
        source: index of the forward operation that a backward operation differentiates,
            or -1.
        random: whether it draws random numbers.
        known: whether there is a formula for its FLOPs; zeros mean nothing where there is none.
        seconds: a time that replaces the machine's estimate, or None.
    """

    name: str
    phase: Phase
    module: str
    reads: tuple[int, ...] = ()
    writes: tuple[int, ...] = ()
    workspace: int = 0
    flops: int = 0
    macs: int = 0
    elementwise: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    dtype: str = "float32"
    source: int = -1
    random: bool = False
    known: bool = True
    seconds: float | None = None

    @property
    def traffic(self) -> int:
        """Bytes read and written."""
        return self.bytes_read + self.bytes_written

    def work(self) -> Work:
        """Return what it computes and moves, to be summed."""
        return Work(self.flops, self.macs, self.elementwise, self.bytes_read, self.bytes_written)


@dataclasses.dataclass(slots=True)
class Storage:
    """One allocation; a value, never changed once made.

    Attributes:
        nbytes: its size.
        kind: what it holds.
        birth: index of the operation that made it, or ``ALWAYS``.
        death: index of the operation after which it is freed; None when it outlives the
            step.
        module: path of the parameter or of the module that made it.
        per_row: how many of its bytes belong to each row of the batch; None where not known.
        shape: of the tensor through which it was first seen.
        itemsize: bytes of one element of that tensor.
        released: index of the operation after which autograd alone held it; None where it was
            not kept for backward, or where that was not seen.
    """

    nbytes: int
    kind: Kind
    birth: int
    death: int | None
    module: str = ""
    per_row: float | None = None
    shape: tuple[int, ...] = ()
    itemsize: int = 1
    released: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """One of several like modules that follow each other, as the layers of a Transformer.

    Attributes:
        path: its dotted path.
        forward: first operation of its forward and one past the last.
        backward: first operation of its backward and one past the last; nothing at the end of
            a step that is a forward alone.
    """

    path: str
    forward: tuple[int, int]
    backward: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Trace:
    """One training step.

    Attributes:
        ops: the operations in order.
        storages: the allocations; operations name them by index.
        blocks: the repeated blocks, in forward order.
        rows: rows of the batch.
        accumulated: storage of each gradient -> operation after which it was accumulated
            into its parameter.
        calls: first operation of each forward of the model itself and one past the last; what
            lies outside of them is the user's own code, such as a loss.
    """

    ops: tuple[Op, ...]
    storages: tuple[Storage, ...]
    blocks: tuple[Block, ...] = ()
    rows: int = 1
    accumulated: dict[int, int] = dataclasses.field(default_factory=dict)
    calls: tuple[tuple[int, int], ...] = ()

    @functools.cached_property
    def _spans(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Sizes of the storages, and where each begins and stops to count."""
        count = max(len(self.ops), 1)
        sizes = np.array([s.nbytes for s in self.storages], dtype=np.int64)
        births = np.array([s.birth for s in self.storages], dtype=np.int64)
        ends = np.array(
            [count if s.death is None else s.death + 1 for s in self.storages], dtype=np.int64
        )
        return sizes, np.maximum(births, 0), np.minimum(ends, count)

    @functools.cached_property
    def _workspaces(self) -> np.ndarray:
        return np.array([op.workspace for op in self.ops] or [0], dtype=np.int64)

    def resident(self, keep: Callable[[Storage], bool] | None = None) -> np.ndarray:
        """Return the bytes alive while each operation runs, workspaces excluded.

        Args:
            keep: counts only the storages for which it is true; all by default.

        Returns:
            int64 array with one entry an operation; a step without operations has one entry.
        """
        sizes = self._spans[0]
        if keep is not None and self.storages:
            sizes = np.where([keep(s) for s in self.storages], sizes, 0)
        return self._alive_sums(sizes)

    def _alive_sums(self, sizes: np.ndarray) -> np.ndarray:
        _, births, ends = self._spans
        delta = np.zeros(max(len(self.ops), 1) + 1, dtype=sizes.dtype)
        np.add.at(delta, births, sizes)
        np.subtract.at(delta, ends, sizes)
        alive: np.ndarray = np.cumsum(delta[:-1])
        return alive

    def timeline(self) -> np.ndarray:
        """Return the bytes alive while each operation runs, workspaces included.

        Returns:
            int64 array with one entry an operation.
        """
        total: np.ndarray = self.resident() + self._workspaces
        return total

    @functools.cached_property
    def peak(self) -> int:
        """The most bytes alive at once."""
        return int(self.timeline().max())

    @property
    def peak_index(self) -> int:
        """The operation at which the peak is reached."""
        return int(self.timeline().argmax())

    @property
    def static(self) -> int:
        """Bytes that are there for the whole step: parameters, buffers, optimizer state, batch."""
        return sum(s.nbytes for s in self.storages if s.birth == ALWAYS and s.death is None)

    def alive(self, index: int) -> list[int]:
        """Return the storages alive while operation ``index`` runs.

        Args:
            index: an operation.

        Returns:
            Indices into ``storages``.
        """
        return [
            i
            for i, s in enumerate(self.storages)
            if s.birth <= index and (s.death is None or s.death >= index)
        ]

    def by_kind(self, index: int) -> dict[Kind, int]:
        """Return the bytes alive while operation ``index`` runs, by kind.

        Args:
            index: an operation.

        Returns:
            Bytes of every kind; the operation's workspace counts as temporary.
        """
        sizes = dict.fromkeys(Kind, 0)
        for i in self.alive(index):
            sizes[self.storages[i].kind] += self.storages[i].nbytes
        if self.ops:
            sizes[Kind.TEMPORARY] += self.ops[index].workspace
        return sizes

    def peak_at(self, rows: int) -> int:
        """Return the peak at another number of rows, without building the scaled trace.

        Args:
            rows: rows of the other batch, at least 1.

        Returns:
            Bytes, equal to ``scaled(rows).peak`` but for the rounding of single storages.
        """
        sizes, slopes, is_step = self._by_row
        live = self._alive_sums(sizes + (rows - self.rows) * slopes)
        spaces = self._workspaces * np.where(is_step, 1.0, rows / self.rows)
        return round(float((live + spaces).max()))

    @functools.cached_property
    def _by_row(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        slopes = np.array([s.per_row or 0.0 for s in self.storages])
        steps = np.array([op.phase is Phase.OPTIMIZER for op in self.ops] or [False])
        return self._spans[0].astype(np.float64), slopes, steps

    def scaled(self, rows: int) -> Trace:
        """Return the same step at another number of rows.

        Sizes and bytes moved follow ``per_row``, learnt from traces at two batch sizes: weights
        that are read and gradients that are summed stay as large as they are. FLOPs follow the
        rows wherever anything of the operation does.

        Args:
            rows: rows of the other batch, at least 1.

        Returns:
            A trace with the same operations.
        """
        if rows == self.rows:
            return self
        storages = tuple(
            dataclasses.replace(s, nbytes=max(0, round(s.nbytes + (rows - self.rows) * s.per_row)))
            if s.per_row
            else s
            for s in self.storages
        )
        made: dict[int, list[Storage]] = {}
        for storage in self.storages:
            if storage.birth != ALWAYS:
                made.setdefault(storage.birth, []).append(storage)
        ops = tuple(
            op
            if op.phase is Phase.OPTIMIZER
            else self._scaled_op(op, made.get(index, ()), rows / self.rows)
            for index, op in enumerate(self.ops)
        )
        return dataclasses.replace(self, ops=ops, storages=storages, rows=rows)

    def _scaled_op(self, op: Op, made: Iterable[Storage], factor: float) -> Op:
        read = self._growth([self.storages[i] for i in op.reads], factor)
        written = self._growth([*(self.storages[i] for i in op.writes), *made], factor)
        computes = factor if read != 1.0 or written != 1.0 else 1.0
        return dataclasses.replace(
            op,
            workspace=round(op.workspace * factor),
            flops=round(op.flops * computes),
            macs=round(op.macs * computes),
            elementwise=round(op.elementwise * computes),
            bytes_read=round(op.bytes_read * read),
            bytes_written=round(op.bytes_written * written),
        )

    def _growth(self, storages: Sequence[Storage], factor: float) -> float:
        """Return what the bytes of some storages are multiplied by as the rows are."""
        whole = sum(s.nbytes for s in storages)
        if not whole:
            return factor
        by_row = sum(min(s.nbytes, (s.per_row or 0.0) * self.rows) for s in storages)
        return 1.0 + (factor - 1.0) * by_row / whole


def total(ops: Iterable[Op]) -> Work:
    """Return what several operations compute and move in all.

    Args:
        ops: operations.
    """
    works = [op.work() for op in ops]
    return Work(*map(sum, zip(*works, strict=True))) if works else Work()


def last_use(ops: Sequence[Op], start: int, stop: int) -> dict[int, int]:
    """Return, for each storage that operations [start, stop) touch, the last that does.

    Args:
        ops: the operations of a step.
        start: first operation looked at.
        stop: one past the last.

    Returns:
        Storage index -> operation index.
    """
    return {s: i for i in range(start, stop) for s in (*ops[i].reads, *ops[i].writes)}


def uses_of(trace: Trace) -> list[list[int]]:
    """Return the operations that read or write each storage, in order.

    Args:
        trace: a step.
    """
    uses: list[list[int]] = [[] for _ in trace.storages]
    for index, op in enumerate(trace.ops):
        for s in dict.fromkeys((*op.reads, *op.writes)):
            uses[s].append(index)
    return uses
