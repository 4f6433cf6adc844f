"""``count``: what a piece of code computes and moves, whatever it calls."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

import torch
from torch import nn

from shoestring.core.errors import InputError
from shoestring.measure._torch import Overload, Packet
from shoestring.measure.counting.compiled import GraphTracer, counted_graphs
from shoestring.measure.counting.counts import Count, Counted, counted
from shoestring.measure.formulas.attention import Causal
from shoestring.measure.tracing.tracer import Tracer

Operator: TypeAlias = Overload | Packet | str
Formula: TypeAlias = Callable[..., int]


@contextlib.contextmanager
def count(
    model: nn.Module | None = None,
    *,
    backward: bool = True,
    formulas: Mapping[Operator, Formula] | None = None,
    causal: Causal = "full",
) -> Iterator[Count]:
    r"""Count the FLOPs, multiply-adds and bytes of all that runs inside the block.

    Every operation is counted where torch dispatches it, by the shapes of its arguments: what is
    written with modules, functions, ``einsum`` or operators counts the same, on tensors with data
    and without. Forward, recompute, backward and the optimizer's step are told apart. Nothing is
    set on the model. What torch.compile was called on is counted from the graphs that are made
    of it, where its recomputation is seen.

    Args:
        model: gives modules their paths, and says how many parameters there are; without it
            modules are named by the class of the model they belong to.
        backward: whether to count what runs in backward, recomputation included.
        formulas: FLOPs of operators that have no formula, or another one: ``{op: f}`` with
            ``f(*args, out=result, **kwargs)``, two FLOPs a multiply-add. An operator is an
            overload, a packet as in ``torch.ops.mylib.myop``, or a name, ``"mylib::myop"``.
        causal: "full" counts every pair of a query and a key, as other counters do; "half" only
            those that an attention kernel told to be causal lets through. A mask given as a
            tensor hides nothing.

    Yields:
        The count, to be read in the block and after it.

    Raises:
        InputError: there is no such operator.

    Example:
        >>> model = nn.Linear(4, 3)
        >>> with count(model) as c:
        ...     model(torch.ones(2, 4)).sum().backward()
        >>> c.macs, c.by_phase()["forward"].macs, c.unknown_ops
        (48, 24, {})

    Source:
        FlopCo (https://github.com/juliagusak/flopco-pytorch), whose attributes are those of
        `shoestring.measure.compat.FlopCo`.
    """
    tracer = GraphTracer(
        assume_scalars=False,
        formulas=_by_overload(formulas or {}),
        backward=backward,
        causal=causal,
    )
    reader = _Reader(tracer, model)
    try:
        with counted_graphs(), tracer.watching(model), tracer:
            yield Count(reader)
    finally:
        reader.close()


class _Reader:
    """Reads a tracer, again only where it went on."""

    def __init__(self, tracer: Tracer, model: nn.Module | None) -> None:
        self._tracer = tracer
        self._model = model
        self._known: Counted | None = None
        self._length = -1

    def __call__(self) -> Counted:
        if self._known is None or self._length != self._tracer.length:
            self._length = self._tracer.length
            models = self._tracer.places.roots if self._model is None else (self._model,)
            distinct = {id(p): p for model in models for p in model.parameters()}
            self._known = counted(
                self._tracer.trace(rows=1, steady=False),
                title=", ".join(type(model).__name__ for model in models) or "code",
                params=sum(p.numel() for p in distinct.values()),
            )
        return self._known

    def close(self) -> None:
        """Stop to follow what the code leaves behind."""
        self._known = None
        self._tracer.close()


def _by_overload(formulas: Mapping[Operator, Formula]) -> dict[Overload, Formula]:
    found: dict[Overload, Formula] = {}
    for operator, formula in formulas.items():
        if isinstance(operator, Overload):
            found[operator] = formula
            continue
        packet = _packet(operator) if isinstance(operator, str) else operator
        if not isinstance(packet, Packet):
            raise InputError(
                f"{operator!r} is no operator.",
                hint='pass torch.ops.mylib.myop, or its name as in "mylib::myop".',
            )
        found.update({getattr(packet, name): formula for name in packet.overloads()})
    return found


def _packet(name: str) -> object:
    namespace, _, operator = name.partition("::")
    with contextlib.suppress(AttributeError, RuntimeError):
        return getattr(getattr(torch.ops, namespace), operator)
    return None
