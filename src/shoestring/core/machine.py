"""What a machine can do, and how a step on it differs from a trace made on the CPU."""

from __future__ import annotations

import dataclasses

from shoestring.core.trace import Op


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

    def seconds(self, op: Op) -> float:
        """Estimate one operation's time: max(flops/rate, traffic/bandwidth) + cost per op.

        Args:
            op: an operation of a trace.

        Returns:
            Seconds.
        """
        if op.seconds is not None:
            return op.seconds
        rate = self.flops.get(op.dtype) or self.flops["float32"]
        return max(op.flops / rate, op.traffic / self.bandwidth) + self.op_seconds

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
