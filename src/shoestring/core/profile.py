"""What one training step costs, module by module and byte by byte."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from typing import Final

from shoestring.core.fidelity import Fidelity
from shoestring.core.machine import Machine
from shoestring.core.markup import bar, joined, table, tag
from shoestring.core.trace import ALWAYS, Kind, Phase, Storage, Trace
from shoestring.core.units import format_bytes, format_seconds

SCHEMA: Final = "shoestring/profile/1"
_SHOWN: Final = 12


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """What the profiled step consists of, as far as techniques must know it.

    Attributes:
        model: name of the model's class.
        num_parameters: parameters, shared ones once.
        num_trainable: those with gradients.
        batch: the batch in words, as in ``input_ids 32x64 int64``.
        rows: rows of the batch.
        optimizer: dotted path of the optimizer's class, or empty.
        optimizer_options: its plain options (numbers, booleans and text only).
        autocast: name of the autocast dtype, or empty.
        clip_norm: global gradient-norm clipping, or None.
        accumulate: micro-batches per step that the user already has.
        set_to_none: whether gradients are freed between steps.
        custom: whether the step is the user's own function.
        ddp: ``"copies"`` or ``"views"`` where the step runs in DistributedDataParallel, by what
            gradients are to its buckets; else empty.
        fake: whether it was traced without data.
        fingerprint: hash of parameter names and shapes.
        couplings: layers that mix samples of a batch, by path and reason.
        recomputes: whether the model recomputes already.
        offloads: whether activations wait in another memory.
    """

    model: str
    num_parameters: int
    num_trainable: int
    batch: str
    rows: int
    optimizer: str = ""
    optimizer_options: dict[str, float | bool | str | None] = dataclasses.field(
        default_factory=dict
    )
    autocast: str = ""
    clip_norm: float | None = None
    accumulate: int = 1
    set_to_none: bool = True
    custom: bool = False
    ddp: str = ""
    fake: bool = True
    fingerprint: str = ""
    couplings: tuple[str, ...] = ()
    recomputes: bool = False
    offloads: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class ModuleCost:
    """What one module costs in a step, its children included.

    Attributes:
        path: dotted path, empty for the whole model.
        parameters: bytes.
        gradients: bytes.
        optimizer: bytes of optimizer state.
        saved: bytes kept from forward to backward.
        flops: contraction FLOPs of forward, recompute and backward.
        traffic: bytes read and written.
        forward_seconds: estimated time of its forward.
        backward_seconds: estimated time of its backward, recomputation included.
        wire: bytes sent to other processes.
    """

    path: str
    parameters: int = 0
    gradients: int = 0
    optimizer: int = 0
    saved: int = 0
    flops: int = 0
    traffic: int = 0
    forward_seconds: float = 0.0
    backward_seconds: float = 0.0
    wire: int = 0


@dataclasses.dataclass(frozen=True)
class Profile:
    """The cost of one steady-state training step.

    Attributes:
        step: what the step consists of.
        traces: one trace per batch shape, the user's batch first.
        machine: the machine it is priced for.
        assumptions: what had to be assumed, in sentences.
        fidelity: of the techniques that this profile contains.
        retrace: traces the step again, changed as its keywords say
            (`shoestring.planner.tracing.Retracer`); None where it cannot be traced again.
        weighting: finds on real data what the losses of micro-batches are weighted by; None
            where there are no data.
    """

    step: Step
    traces: tuple[Trace, ...]
    machine: Machine
    assumptions: tuple[str, ...] = ()
    fidelity: Fidelity = Fidelity.EXACT
    retrace: Callable[..., Trace] | None = dataclasses.field(
        default=None, repr=False, compare=False
    )
    weighting: Callable[[], str] | None = dataclasses.field(default=None, repr=False, compare=False)

    @property
    def trace(self) -> Trace:
        """The trace of the user's batch."""
        return self.traces[0]

    @property
    def widest(self) -> Trace:
        """The trace with the highest peak over all batch shapes."""
        return max(self.traces, key=lambda trace: trace.peak)

    @property
    def peak(self) -> int:
        """The most bytes alive in one steady-state step, everything included."""
        return self.widest.peak

    @property
    def static(self) -> int:
        """Bytes alive during the whole step."""
        return self.widest.static

    @property
    def footprint(self) -> int:
        """Bytes the process takes of the device: the peak, and a card's context and reserve."""
        return self.machine.footprint(self.peak)

    @functools.cached_property
    def activation_peak(self) -> int:
        """The peak of forward and backward above parameters, buffers, optimizer state, batch."""
        fixed = {Kind.PARAMETER, Kind.BUFFER, Kind.OPTIMIZER, Kind.BATCH}
        most = 0
        for trace in self.traces:
            live = trace.resident(lambda s: s.kind not in fixed)
            for op, size in zip(trace.ops, live, strict=False):
                if op.phase is not Phase.OPTIMIZER:
                    most = max(most, int(size) + op.workspace)
        return most

    @functools.cached_property
    def seconds(self) -> float:
        """Estimated time of one step on the machine."""
        return sum(self.machine.seconds(op) for op in self.trace.ops)

    @property
    def flops(self) -> int:
        """Contraction FLOPs of one step."""
        return sum(op.flops for op in self.trace.ops)

    @property
    def timeline(self) -> list[dict[str, int | str]]:
        """The operations in order, with the bytes alive while each runs."""
        trace = self.widest
        return [
            {"op": op.name, "phase": op.phase.value, "module": op.module, "bytes": int(size)}
            for op, size in zip(trace.ops, trace.timeline(), strict=False)
        ]

    @property
    def modules(self) -> dict[str, ModuleCost]:
        """Costs by module path, children included; the empty path is the whole model."""
        sums: dict[str, dict[str, float]] = {}

        def add(path: str, field: str, amount: float) -> None:
            parts = path.split(".") if path else []
            for depth in range(len(parts) + 1):
                row = sums.setdefault(".".join(parts[:depth]), {})
                row[field] = row.get(field, 0) + amount

        trace = self.trace
        for storage in trace.storages:
            field = _module_field(storage, trace)
            if field:
                owner = storage.module
                if storage.kind in (Kind.PARAMETER, Kind.GRADIENT, Kind.OPTIMIZER):
                    owner = owner.rpartition(".")[0]
                add(owner, field, storage.nbytes)
        for op in trace.ops:
            if op.phase is Phase.OPTIMIZER:
                continue
            seconds = self.machine.seconds(op)
            forward = op.phase is Phase.FORWARD
            add(op.module, "forward_seconds" if forward else "backward_seconds", seconds)
            add(op.module, "flops", op.flops)
            add(op.module, "traffic", op.traffic)
        return {path: _cost(path, row) for path, row in sorted(sums.items())}

    def table(self) -> str:
        """Return the profile as text for a terminal, without colour."""
        trace = self.widest
        kinds = trace.by_kind(trace.peak_index)
        rows = [(kind.value, size) for kind, size in kinds.items() if size]
        width = max(len(name) for name, _ in rows) if rows else 10
        lines = [
            f"{self.step.model}: {self.step.num_parameters / 1e6:,.1f} M parameters, "
            f"batch {self.step.batch}",
            f"step: {self.step.optimizer.rpartition('.')[2] or 'forward and backward'}"
            f" on {self.machine.title}",
            "",
            f"peak {format_bytes(self.peak)}, made of",
        ]
        for name, size in rows:
            share = size / max(self.peak, 1)
            bar = "█" * round(30 * share)
            lines.append(f"  {name:<{width}}  {format_bytes(size):>9}  {share:>4.0%}  {bar}")
        if self.machine.context or self.machine.reserve:
            reserve = round(self.peak * self.machine.reserve)
            lines += [
                "",
                f"on the card: context {format_bytes(self.machine.context)} + reserve "
                f"{format_bytes(reserve)} + allocated {format_bytes(self.peak)} "
                f"= {format_bytes(self.footprint)}",
            ]
        if trace.ops:
            at = trace.ops[trace.peak_index]
            where = f" of {at.module}" if at.module else ""
            lines.append(f"  reached in {at.phase.value}, {at.name}{where}")
        lines += [
            "",
            f"time {format_seconds(self.seconds)} (estimated), {self.flops / 1e9:,.1f} GFLOP",
        ]
        lines += [f"note: {sentence}" for sentence in self.assumptions]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Return the profile for a notebook."""
        trace = self.widest
        kinds = [(k.value, size) for k, size in trace.by_kind(trace.peak_index).items() if size]
        rows = [
            (name, format_bytes(size), f"{size / max(self.peak, 1):.0%}", bar(size / self.peak))
            for name, size in kinds
        ]
        step = self.step.optimizer.rpartition(".")[2] or "forward and backward"
        caption = f"{self.step.model}, {step}: peak {format_bytes(self.peak)}"
        modules = sorted(self.modules.values(), key=lambda c: -(c.parameters + c.saved))
        costs = [
            (
                cost.path or "the whole model",
                *(format_bytes(n) for n in (cost.parameters, cost.saved)),
                f"{cost.flops / 1e9:,.1f}",
            )
            for cost in modules[:_SHOWN]
        ]
        held = ("held", "bytes", "share", "")
        head = ("module", "parameters", "saved activations", "GFLOP")
        return joined(
            [
                table(caption, held, rows, numbers=(1, 2), inline=True),
                table("where it is", head, costs, numbers=(1, 2, 3), inline=True),
                *(tag("p", f"note: {sentence}") for sentence in self.assumptions),
            ]
        )

    def to_json(self) -> str:
        """Return the profile's figures as JSON text with a schema name."""
        trace = self.widest
        return json.dumps(
            {
                "schema": SCHEMA,
                "step": dataclasses.asdict(self.step),
                "machine": dataclasses.asdict(self.machine),
                "peak": self.peak,
                "footprint": self.footprint,
                "static": self.static,
                "activation_peak": self.activation_peak,
                "seconds": self.seconds,
                "flops": self.flops,
                "peak_by_kind": {k.value: v for k, v in trace.by_kind(trace.peak_index).items()},
                "modules": [dataclasses.asdict(cost) for cost in self.modules.values()],
                "timeline": self.timeline,
                "fidelity": self.fidelity.value,
                "assumptions": list(self.assumptions),
            },
            indent=1,
        )

    def __str__(self) -> str:
        return self.table()


def _module_field(storage: Storage, trace: Trace) -> str:
    if storage.kind is Kind.PARAMETER:
        return "parameters"
    if storage.kind is Kind.GRADIENT:
        return "gradients"
    if storage.kind is Kind.OPTIMIZER:
        return "optimizer"
    if storage.kind is Kind.ACTIVATION and storage.birth != ALWAYS:
        return "saved" if trace.ops[storage.birth].phase is Phase.FORWARD else ""
    return ""


def _cost(path: str, row: dict[str, float]) -> ModuleCost:
    return ModuleCost(
        path,
        parameters=int(row.get("parameters", 0)),
        gradients=int(row.get("gradients", 0)),
        optimizer=int(row.get("optimizer", 0)),
        saved=int(row.get("saved", 0)),
        flops=int(row.get("flops", 0)),
        traffic=int(row.get("traffic", 0)),
        forward_seconds=row.get("forward_seconds", 0.0),
        backward_seconds=row.get("backward_seconds", 0.0),
    )
