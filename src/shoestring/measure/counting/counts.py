"""What was counted: FLOPs, multiply-adds and bytes, by module, by operation and by phase."""

from __future__ import annotations

import dataclasses
import functools
import operator
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from shoestring.core.machine import Machine
from shoestring.core.trace import ALWAYS, Kind, Op, Phase, Trace, Work

if TYPE_CHECKING:
    from shoestring.measure.timing.roofline import Roofline


class Row(NamedTuple):
    """Calls that were alike: of one operation, in one module and phase, of one size.

    Attributes:
        phase: when they ran.
        module: dotted path of the module they ran in; of backward, of the module whose forward
            they differentiate.
        op: the operator, as in ``aten.mm``.
        dtype: the widest floating type among their tensors.
        known: whether there is a formula for the operator's FLOPs.
        work: what one of the calls computes and moves.
        calls: how many there were.
    """

    phase: Phase
    module: str
    op: str
    dtype: str
    known: bool
    work: Work
    calls: int


@dataclasses.dataclass(frozen=True, slots=True)
class Totals:
    """What some calls compute and move in all.

    Attributes:
        calls: how many there were.
        flops: floating point operations of contractions, 2 a multiply-add, and of algorithms.
        macs: multiply-adds of contractions.
        elementwise_flops: scalar operations of everything that works element by element.
        bytes_read: of inputs, each read once by each operation.
        bytes_written: of outputs.
    """

    calls: int = 0
    flops: int = 0
    macs: int = 0
    elementwise_flops: int = 0
    bytes_read: int = 0
    bytes_written: int = 0

    @property
    def bytes(self) -> int:
        """Bytes read and written."""
        return self.bytes_read + self.bytes_written

    @property
    def intensity(self) -> float:
        """FLOPs of both kinds a byte read or written; 0 where nothing moved."""
        return (self.flops + self.elementwise_flops) / self.bytes if self.bytes else 0.0


@dataclasses.dataclass(frozen=True)
class Counted:
    """All that a `Count` tells, as data.

    Attributes:
        title: what was counted.
        params: parameters of the model, shared ones once.
        rows: the calls, in the order in which the first of each kind ran.
        activation_bytes: made by forward and alive when backward begins.
        bytes_in: the least to be read: what was there before, each storage once.
        bytes_out: the least to be written: what is changed or stays, each storage once.
    """

    title: str
    params: int
    rows: tuple[Row, ...]
    activation_bytes: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


class Count:
    """The cost of a piece of code; while it runs, the cost so far.

    Args:
        read: returns what was counted up to now.
    """

    def __init__(self, read: Callable[[], Counted]) -> None:
        self._read = read

    @property
    def counted(self) -> Counted:
        """All of it, as data."""
        return self._read()

    @property
    def rows(self) -> tuple[Row, ...]:
        """Calls, like ones together, in the order in which they ran."""
        return self._read().rows

    @property
    def total(self) -> Totals:
        """Everything together."""
        return sum_up(self.rows)

    @property
    def flops(self) -> int:
        """FLOPs of contractions, 2 a multiply-add, and of algorithms such as an FFT."""
        return self.total.flops

    @property
    def macs(self) -> int:
        """Multiply-adds of contractions: matrix products, convolutions, attention."""
        return self.total.macs

    @property
    def elementwise_flops(self) -> int:
        """Scalar operations of what works element by element, reductions and norms included."""
        return self.total.elementwise_flops

    @property
    def params(self) -> int:
        """Parameters of the model, shared ones once."""
        return self._read().params

    @property
    def bytes_read(self) -> int:
        """Bytes that operations read, where each reads all of its inputs from memory."""
        return self.total.bytes_read

    @property
    def bytes_written(self) -> int:
        """Bytes that operations write, where each writes all of its outputs to memory."""
        return self.total.bytes_written

    @property
    def fused_bytes(self) -> int:
        """The least bytes to move if all were one kernel: what comes in and what stays."""
        counted = self._read()
        return counted.bytes_in + counted.bytes_out

    @property
    def activation_bytes(self) -> int:
        """Bytes made by forward and alive when backward begins; without one, at the end."""
        return self._read().activation_bytes

    @property
    def intensity(self) -> float:
        """FLOPs of both kinds a byte read or written."""
        return self.total.intensity

    @property
    def unknown_ops(self) -> dict[str, int]:
        """Operators without a formula -> calls; what they compute is in no figure."""
        unknown: dict[str, int] = {}
        for row in self.rows:
            if not row.known:
                unknown[row.op] = unknown.get(row.op, 0) + row.calls
        return unknown

    def by_module(self, depth: int | None = None) -> dict[str, Totals]:
        """Return the cost of every module, what is inside it included.

        Args:
            depth: of the modules, 1 for the model's children; all by default.

        Returns:
            Path -> cost; the empty path is everything.
        """
        parts: dict[str, list[Row]] = {"": []}
        for row in self.rows:
            for path in enclosing(row.module, depth):
                parts.setdefault(path, []).append(row)
        return {path: sum_up(rows) for path, rows in parts.items()}

    def by_op(self) -> dict[str, Totals]:
        """Return the cost of every operator, the most FLOPs first.

        Returns:
            Operator, as in ``aten.mm`` -> cost.
        """
        parts: dict[str, list[Row]] = {}
        for row in self.rows:
            parts.setdefault(row.op, []).append(row)
        sums = {op: sum_up(rows) for op, rows in parts.items()}
        order = sorted(sums, key=lambda op: (-sums[op].flops, -sums[op].bytes, op))
        return {op: sums[op] for op in order}

    def by_phase(self) -> dict[str, Totals]:
        """Return the cost of forward, recompute, backward and optimizer, each in any case."""
        parts: dict[str, list[Row]] = {phase.value: [] for phase in Phase}
        for row in self.rows:
            parts[row.phase.value].append(row)
        return {phase: sum_up(rows) for phase, rows in parts.items()}

    def roofline(self, machine: Machine | str = "this") -> Roofline:
        """Estimate how long it takes on a machine, by its rates and the cost of an operation.

        Args:
            machine: a machine's sheet or its name.

        Raises:
            InputError: there is no such machine.
        """
        from shoestring.measure.timing.machines import load_machine
        from shoestring.measure.timing.roofline import make_roofline

        return make_roofline(self.counted, load_machine(machine))

    # --- show and keep ---------------------------------------------------------------------
    # What shows and keeps a count reads it through this class, so it is imported on use.

    def table(self, depth: int | None = 2, machine: Machine | str | None = None) -> str:
        """Return the count as text for a terminal, without colour.

        Args:
            depth: of the modules, 0 for the whole alone; None for all.
            machine: a machine's sheet or its name, to estimate times; None for no times.

        Raises:
            InputError: the depth is negative, or there is no such machine.
        """
        from shoestring.measure.counting.table import count_table

        return count_table(self, depth, machine)

    def __str__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        """Return the count for a notebook."""
        from shoestring.measure.counting.html import count_fragment

        return count_fragment(self)

    def to_html(self, depth: int | None = 2, machine: Machine | str | None = None) -> str:
        """Return the count as an HTML page that needs nothing else.

        Args:
            depth: of the modules; None for all.
            machine: a machine's sheet or its name, to estimate times; None for no times.

        Raises:
            InputError: the depth is negative, or there is no such machine.
        """
        from shoestring.measure.counting.html import count_html

        return count_html(self, depth, machine)

    def to_csv(
        self, by: Literal["row", "module", "phase", "op"] = "row", depth: int | None = None
    ) -> str:
        """Return the count as CSV with a line of names.

        Args:
            by: ``row`` for a line for every kind of call, else for every module, phase or
                operator.
            depth: of the modules; None for all.

        Raises:
            InputError: ``by`` is none of these.
        """
        from shoestring.measure.counting.documents import count_csv

        return count_csv(self, by, depth)

    def to_json(self) -> str:
        """Return the count as JSON text with a schema name."""
        from shoestring.measure.counting.documents import count_json

        return count_json(self)

    @classmethod
    def from_json(cls, text: str) -> Count:
        """Return the count that JSON text describes; the text is not trusted.

        Args:
            text: what `to_json` returned.

        Raises:
            InputError: it is no such text, and what is wrong with it.
        """
        from shoestring.measure.counting.documents import parse_count

        return parse_count(text)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the count to a JSON file, whole or not at all.

        Args:
            path: where to; an existing file is replaced.

        Raises:
            InputError: the file cannot be written.
        """
        from shoestring.measure.counting.documents import save_count

        save_count(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Count:
        """Read a count; the file is not trusted.

        Args:
            path: a file that `save` wrote, or that ``shoestring count --json`` printed.

        Raises:
            InputError: it is no such file, and what is wrong with it.
        """
        from shoestring.measure.counting.documents import load_count

        return load_count(path)


@functools.lru_cache(maxsize=4096)
def enclosing(module: str, depth: int | None) -> tuple[str, ...]:
    """Return a path and those it is inside of, the empty one first."""
    names = module.split(".") if module else []
    most = len(names) if depth is None else min(depth, len(names))
    # A name may be empty in what was read from a file; no path may come twice.
    return tuple(dict.fromkeys(".".join(names[:n]) for n in range(most + 1)))


FIGURES: Final = tuple(field.name for field in dataclasses.fields(Totals))
"""The names of the figures of a cost."""

figures_of: Callable[[Totals], tuple[int, ...]] = operator.attrgetter(*FIGURES)
"""Returns them; `dataclasses.astuple` would copy each."""


def sum_up(rows: Iterable[Row]) -> Totals:
    """Return what several rows cost together.

    Args:
        rows: of a count.
    """
    calls = flops = macs = elementwise = read = written = 0
    for row in rows:
        n, work = row.calls, row.work
        calls += n
        flops += n * work.flops
        macs += n * work.macs
        elementwise += n * work.elementwise
        read += n * work.bytes_read
        written += n * work.bytes_written
    return Totals(calls, flops, macs, elementwise, read, written)


def counted(trace: Trace, *, title: str, params: int) -> Counted:
    """Return what a trace's operations cost.

    Args:
        trace: of any code.
        title: what was counted.
        params: parameters of the model.
    """
    bytes_in, bytes_out = _boundary(trace)
    return Counted(
        title=title,
        params=params,
        rows=_merged(trace.ops),
        activation_bytes=sum(s.nbytes for s in trace.storages if s.kind is Kind.ACTIVATION),
        bytes_in=bytes_in,
        bytes_out=bytes_out,
    )


def _merged(ops: Iterable[Op]) -> tuple[Row, ...]:
    calls: dict[tuple[Phase, str, str, str, bool, Work], int] = {}
    for op in ops:
        key = (op.phase, op.module, op.name, op.dtype, op.known, op.work())
        calls[key] = calls.get(key, 0) + 1
    return tuple(
        Row(phase, module, _packet(name), dtype, known, work, count)
        for (phase, module, name, dtype, known, work), count in calls.items()
    )


@functools.lru_cache(maxsize=4096)
def _packet(name: str) -> str:
    """Return an operator's name without its overload, as in ``aten.mm``."""
    parts = name.split(".")
    return ".".join(parts[:2]) if len(parts) == _NAMESPACE_NAME_OVERLOAD else name


_NAMESPACE_NAME_OVERLOAD: Final = 3


def _boundary(trace: Trace) -> tuple[int, int]:
    """Return the bytes of what was there before and is read, and of what is changed or stays.

    Of a storage no more counts than the operation that touches most of it moves.
    """
    read, written = [0] * len(trace.storages), [0] * len(trace.storages)
    for op in trace.ops:
        for i in op.reads:
            read[i] = max(read[i], op.bytes_read)
        for i in op.writes:
            written[i] = max(written[i], op.bytes_written)
    last = len(trace.ops) - 1
    into = out = 0
    for storage, most_read, most_written in zip(trace.storages, read, written, strict=True):
        if storage.birth == ALWAYS:
            into += min(storage.nbytes, most_read)
            out += min(storage.nbytes, most_written)
        elif storage.death is None or (storage.kind is Kind.GRADIENT and storage.death == last):
            out += storage.nbytes
    return into, out
