"""What a machine can do, and how a step on it differs from a trace made on the CPU."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

from shoestring.core.kernels import Kernel, kernel_of
from shoestring.core.trace import Op, Phase, Work


class Pace(NamedTuple):
    """How fast one kind of kernel goes.

    Attributes:
        share: of the rate of large products that its FLOPs reach.
        bandwidth: bytes a second that it reads and writes.
        start: seconds that a call takes above a plain operation on a few numbers.
    """

    share: float
    bandwidth: float
    start: float


class Price(NamedTuple):
    """What one operation takes, in seconds.

    Attributes:
        compute: for its FLOPs.
        memory: for its bytes; the kernel works on both at once.
        cost: of being called at all, whatever its size.
    """

    compute: float
    memory: float
    cost: float

    @property
    def kernel(self) -> float:
        """Seconds of the work alone: the longer of compute and memory."""
        return max(self.compute, self.memory)

    @property
    def seconds(self) -> float:
        """Seconds of the operation: its work and its cost."""
        return max(self.compute, self.memory) + self.cost


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A machine's data sheet.

    Attributes:
        name: short name, as in ``rtx-4090`` or ``this``.
        title: name for people.
        device: ``cpu`` or ``cuda``.
        memory: bytes of device memory; None where not known.
        flops: floating point operations a second for contractions, by dtype name.
        bandwidth: bytes a second of device memory.
        op_seconds: cost of one operation beside arithmetic and traffic.
        link: bytes a second between device and host memory; None where they are the same.
        context: bytes that the driver and the libraries take beside all tensors.
        reserve: share of the allocated bytes that the caching allocator holds on top.
        block: bytes to which an allocation is rounded up.
        foreach: whether torch's optimizers work on lists of tensors by default there, which
            takes transient copies.
        fused_attention: whether attention with dropout keeps no score matrix there.
        measured: True where the sheet's memory rows were compared with measurements.
        source: where the figures come from.
        paces: how fast kinds of kernels go; one that is missing goes at the rate of products and
            at the bandwidth, and starts at once.
        op_costs: seconds of one operation by phase, in place of `op_seconds`.
    """

    name: str
    title: str
    device: str
    memory: int | None
    flops: dict[str, float]
    bandwidth: float
    op_seconds: float
    link: float | None = None
    context: int = 0
    reserve: float = 0.0
    block: int = 1
    foreach: bool = False
    fused_attention: bool = False
    measured: bool = False
    source: str = ""
    paces: Mapping[Kernel, Pace] = dataclasses.field(default_factory=dict)
    op_costs: Mapping[Phase, float] = dataclasses.field(default_factory=dict)

    def seconds(self, op: Op) -> float:
        """Estimate one operation's time: max(flops/rate, traffic/bandwidth) + cost of a call.

        Args:
            op: an operation of a trace.

        Returns:
            Seconds.
        """
        if op.seconds is not None:
            return op.seconds
        return self.price(op.name, op.phase, op.dtype, op.work()).seconds

    def price(self, name: str, phase: Phase, dtype: str, work: Work) -> Price:
        """Estimate what an operation takes; all other estimates of time are made of this one.

        Args:
            name: of the operator, as in ``aten.mm.default`` or ``aten.mm``.
            phase: when it runs.
            dtype: of its tensors, as in ``float32``.
            work: what it computes and moves.

        Returns:
            Its parts in seconds.
        """
        rate = self.peak(dtype)
        moved = work.bytes_read + work.bytes_written
        pace = self.paces.get(kernel_of(name, contracts=work.flops > 0))
        if pace is None:
            return Price(work.flops / rate, moved / self.bandwidth, self.op_cost(phase))
        compute = work.flops / (rate * pace.share)
        return Price(compute, moved / pace.bandwidth, self.op_cost(phase) + pace.start)

    def peak(self, dtype: str) -> float:
        """Return the rate of large products.

        Args:
            dtype: of their operands.

        Returns:
            FLOPs a second; those of float32 for a type that was not measured.
        """
        return self.flops.get(dtype) or self.flops["float32"]

    def op_cost(self, phase: Phase) -> float:
        """Return what an operation takes beside its kernel's work.

        Args:
            phase: when it runs; in forward there is Python around it, in backward hardly any.

        Returns:
            Seconds.
        """
        if phase is Phase.RECOMPUTE:
            phase = Phase.FORWARD
        return self.op_costs.get(phase, self.op_seconds)

    @property
    def fastest(self) -> float:
        """The most bytes a second that any kind of kernel reaches."""
        return max([self.bandwidth, *(pace.bandwidth for pace in self.paces.values())])

    def rounded(self, nbytes: int) -> int:
        """Return an allocation's size as the allocator rounds it.

        Args:
            nbytes: requested bytes.

        Returns:
            Bytes taken.
        """
        return -(-nbytes // self.block) * self.block

    def footprint(self, allocated: int) -> int:
        """Return what a process takes of the device for a peak of allocated bytes.

        Args:
            allocated: peak of allocated bytes.

        Returns:
            context + allocated + reserve; just the allocated bytes on a CPU.
        """
        return self.context + round(allocated * (1 + self.reserve))
