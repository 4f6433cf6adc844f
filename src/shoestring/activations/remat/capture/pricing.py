"""What the operations of a joint graph cost: measured, estimated, or counted."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import fx
from torch._ops import OpOverload

from shoestring.activations.remat.capture._torch import with_real_tensors
from shoestring.activations.remat.capture.call_seconds import CallTimer
from shoestring.activations.remat.capture.randomness import dropout_from_mask, random_state
from shoestring.activations.remat.capture.sizes import AS_CAPTURED, Sizes
from shoestring.core.machine import Machine
from shoestring.core.trace import Phase, Work
from shoestring.measure import load_machine
from shoestring.measure.formulas import op_cost
from shoestring.measure.tracing.calls import tensors
from shoestring.measure.tracing.workspace import WorkspaceProbe


class CostKind(enum.StrEnum):
    """How the seconds of operations are told."""

    MEASURE = "measure"
    FLOPS = "flops"
    ROOFLINE = "roofline"


class Price(NamedTuple):
    """What an operation costs.

    Attributes:
        seconds: that it takes; with `CostKind.FLOPS`, FLOPs.
        workspace: bytes beside its results while it runs.
    """

    seconds: float
    workspace: int


aten = torch.ops.aten

Prices: TypeAlias = Mapping[fx.Node, Price]


def price_nodes(
    nodes: Sequence[fx.Node],
    kind: CostKind,
    *,
    machine: Machine | None = None,
    sizes: Sizes = AS_CAPTURED,
) -> Prices:
    """Price operations of a joint graph.

    Each distinct call (operator, shapes, types, strides) is looked at once. Workspaces are
    measured, whatever tells the seconds, because the peak depends on them.

    Args:
        nodes: calls of operators of torch.
        kind: how the seconds are told.
        machine: whose roofline is taken; by default this computer's.
        sizes: tells what sizes are that change from batch to batch.

    Returns:
        Their prices.
    """
    calls = {node: calls_of(node, sizes) for node in nodes}
    flat = [call for several in calls.values() for call in several]
    with with_real_tensors():
        spaces = _workspaces(flat)
        if kind is CostKind.MEASURE:
            seconds = _measured(flat)
        elif kind is CostKind.FLOPS:
            seconds = [flops_of(call) for call in flat]
        else:
            machine = machine or load_machine("this")
            seconds = [_estimated(call, machine) for call in flat]
    each = iter(zip(seconds, spaces, strict=True))
    prices = {}
    for node, several in calls.items():
        taken = [next(each) for _ in several]
        prices[node] = Price(sum(t for t, _ in taken), max((s for _, s in taken), default=0))
    return prices


class GivenCall(NamedTuple):
    """A call with examples of what it is given and returns.

    Attributes:
        operator: what is called.
        args: positional arguments; tensors are fake.
        kwargs: keyword arguments.
        result: what it returns.
        late: whether it belongs to the backward.
    """

    operator: OpOverload
    args: tuple[object, ...]
    kwargs: Mapping[str, object]
    result: object
    late: bool


def calls_of(node: fx.Node, sizes: Sizes = AS_CAPTURED) -> list[GivenCall]:
    """Return the calls that a node makes, with the examples that the graph was made with.

    Args:
        node: an operation.
        sizes: tells what sizes are that change from batch to batch.

    Returns:
        One call; two for a dropout from its mask, none for the state of a generator.
    """
    result = _fixed(node.meta.get("val"), sizes)
    late = node.meta.get("partitioner_tag") == "is_backward"
    if node.target is random_state:
        return []
    args = tuple(_fixed(value, sizes) for value in node.args)
    if node.target is dropout_from_mask:
        products = ((aten.mul.Tensor, args[:2]), (aten.mul_.Tensor, (result, args[2])))
        return [GivenCall(product, given, {}, result, late) for product, given in products]
    assert isinstance(node.target, OpOverload)
    kwargs = {name: _fixed(value, sizes) for name, value in node.kwargs.items()}
    return [GivenCall(node.target, args, kwargs, result, late)]


def _fixed(value: object, sizes: Sizes) -> object:
    """Return an argument with examples for nodes, and with sizes that are plain numbers."""
    if isinstance(value, fx.Node):
        return _fixed(value.meta["val"], sizes)
    if isinstance(value, torch.SymInt):
        return sizes.number(value)
    if isinstance(value, (torch.SymFloat, torch.SymBool)):
        return value.node.hint
    if isinstance(value, (tuple, list)):
        return type(value)(_fixed(part, sizes) for part in value)
    return sizes.tensor(value) if isinstance(value, torch.Tensor) else value


def flops_of(call: GivenCall) -> float:
    """Return a call's FLOPs; at least one, so that nothing is computed again for nothing.

    Args:
        call: of an operator of torch.
    """
    cost = op_cost(call.operator, call.args, call.kwargs, call.result)
    return 1.0 if cost is None else float(max(cost.flops, 1))


def _estimated(call: GivenCall, machine: Machine) -> float:
    cost = op_cost(call.operator, call.args, call.kwargs, call.result)
    flops, macs, elementwise = (0, 0, 0) if cost is None else cost
    work = Work(
        flops=flops,
        macs=macs,
        elementwise=elementwise,
        bytes_read=_bytes([*call.args, *call.kwargs.values()]),
        bytes_written=_bytes([call.result]),
    )
    phase = Phase.BACKWARD if call.late else Phase.FORWARD
    return machine.price(str(call.operator), phase, _dtype(call.result), work).seconds


def _bytes(values: Sequence[object]) -> int:
    return sum(int(t.numel()) * t.element_size() for t in tensors(values))


def _dtype(result: object) -> str:
    floating = [t for t in tensors([result]) if t.is_floating_point()]
    return str(floating[0].dtype).removeprefix("torch.") if floating else "float32"


def _workspaces(calls: Sequence[GivenCall]) -> list[int]:
    probe = WorkspaceProbe()
    keys = [probe.note(call.operator, call.args, call.kwargs) for call in calls]
    known = probe.resolve()
    return [known[key].transient if key is not None and key in known else 0 for key in keys]


def _measured(calls: Sequence[GivenCall]) -> list[float]:
    timer = CallTimer()
    keys = [timer.note(call.operator, call.args, call.kwargs) for call in calls]
    known = timer.resolve()
    if all(key in known for key in keys):
        return [known[key] for key in keys]
    machine = load_machine("this")
    pairs = zip(keys, calls, strict=True)
    return [known[k] if k in known else _estimated(call, machine) for k, call in pairs]
