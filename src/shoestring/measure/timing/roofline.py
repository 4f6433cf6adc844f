"""The roofline of what was counted: how long it takes on a machine, and why."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import NamedTuple

from shoestring.core.machine import Machine, Price
from shoestring.core.trace import Phase
from shoestring.core.units import format_seconds
from shoestring.measure.counting.counts import Counted, Row, enclosing


class Bound(NamedTuple):
    """By what the estimated time is bound, as shares of it.

    Attributes:
        compute: of operations whose FLOPs take longer than their bytes.
        memory: of operations whose bytes take longer than their FLOPs.
        cost: of what operations cost beside their kernels' work, however small they are.
    """

    compute: float
    memory: float
    cost: float


@dataclasses.dataclass(frozen=True)
class Roofline:
    r"""The estimated time of what was counted, operation by operation.

    An operation :math:`i` of :math:`f_i` FLOPs and :math:`b_i` bytes takes

    .. math:: t_i = \max(f_i / F_i, b_i / B_i) + c_i

    with the rate :math:`F` of its type and kind of kernel, the bandwidth :math:`B` of its kind,
    and the cost :math:`c` of an operation in its phase. ``unfused`` leaves :math:`c` away, and
    ``fused`` takes everything as one kernel.

    Attributes:
        title: what was counted.
        machine: whose time it is.
        rows: calls that are alike.
        prices: what one of the calls takes, by row.
        fused: seconds if all were one kernel that reads what comes in and writes what stays:
            max(FLOPs / peak rate, bytes / best bandwidth).

    Source:
        S. Williams, A. Waterman, D. Patterson: Roofline: an insightful visual performance model
        for multicore architectures. CACM 52(4), 2009.
    """

    title: str
    machine: Machine
    rows: tuple[Row, ...]
    prices: tuple[Price, ...]
    fused: float

    @functools.cached_property
    def seconds(self) -> float:
        """The estimated time: of the kernels' work, and of calling them."""
        return sum(r.calls * p.seconds for r, p in self._priced())

    @functools.cached_property
    def unfused(self) -> float:
        """Of the kernels' work alone: the least for operations that run one by one."""
        return sum(r.calls * p.kernel for r, p in self._priced())

    @functools.cached_property
    def bound(self) -> Bound:
        """By what the time is bound; all zero where nothing ran."""
        compute = memory = cost = 0.0
        for row, price in self._priced():
            cost += row.calls * price.cost
            if price.compute > price.memory:
                compute += row.calls * price.compute
            else:
                memory += row.calls * price.memory
        whole = self.seconds or 1.0
        return Bound(compute / whole, memory / whole, cost / whole)

    def by_module(self, depth: int | None = None) -> dict[str, float]:
        """Return the seconds of every module, what is inside it included.

        Args:
            depth: of the modules, 1 for the model's children; all by default.

        Returns:
            Path -> seconds; the empty path is everything.
        """
        return {"": 0.0} | self._sums(lambda row: enclosing(row.module, depth))

    def by_op(self) -> dict[str, float]:
        """Return the seconds of every operator, the most first."""
        sums = self._sums(lambda row: (row.op,))
        return dict(sorted(sums.items(), key=lambda item: (-item[1], item[0])))

    def by_phase(self) -> dict[str, float]:
        """Return the seconds of forward, recompute, backward and optimizer, each in any case."""
        return dict.fromkeys(map(str, Phase), 0.0) | self._sums(lambda row: (row.phase.value,))

    def table(self) -> str:
        """Return the estimate as text, without colour."""
        bound = self.bound
        width = max(len(phase) for phase in Phase)
        phases = [(phase, seconds) for phase, seconds in self.by_phase().items() if seconds]
        whole = self.seconds or 1.0
        return "\n".join(
            [
                f"{self.title} on {self.machine.title or self.machine.name}: "
                f"{format_seconds(self.seconds)} (estimated)",
                *(
                    f"  {phase:<{width}}  {format_seconds(seconds):>10}  {seconds / whole:>4.0%}"
                    for phase, seconds in phases
                ),
                f"bound by compute {bound.compute:.0%}, by memory {bound.memory:.0%}, "
                f"by the cost of operations {bound.cost:.0%}",
                f"at least {format_seconds(self.unfused)} operation by operation, "
                f"{format_seconds(self.fused)} as one kernel",
            ]
        )

    def __str__(self) -> str:
        return self.table()

    def _priced(self) -> Iterable[tuple[Row, Price]]:
        return zip(self.rows, self.prices, strict=True)

    def _sums(self, keys: Callable[[Row], Iterable[str]]) -> dict[str, float]:
        sums: dict[str, float] = {}
        for row, price in self._priced():
            for key in keys(row):
                sums[key] = sums.get(key, 0.0) + row.calls * price.seconds
        return sums


def make_roofline(counted: Counted, machine: Machine) -> Roofline:
    """Return the roofline of what was counted.

    Args:
        counted: what ran.
        machine: whose time is estimated.

    Example:
        >>> from shoestring.measure import count, load_machine
        >>> with count() as c:
        ...     _ = torch.ones(64, 64) @ torch.ones(64, 64)
        >>> estimate = make_roofline(c.counted, load_machine("h200"))
        >>> estimate.fused <= estimate.unfused <= estimate.seconds
        True
    """
    prices = tuple(machine.price(r.op, r.phase, r.dtype, r.work) for r in counted.rows)
    flops = sum(r.calls * r.work.flops / machine.peak(r.dtype) for r in counted.rows)
    moved = sum(r.calls * (r.work.bytes_read + r.work.bytes_written) for r in counted.rows)
    # What comes in and stays is taken by whole tensors, of which operations may touch a part.
    boundary = min(counted.bytes_in + counted.bytes_out, moved)
    return Roofline(
        title=counted.title,
        machine=machine,
        rows=counted.rows,
        prices=prices,
        fused=max(flops, boundary / machine.fastest),
    )
