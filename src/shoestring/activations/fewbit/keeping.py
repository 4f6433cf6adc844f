"""What autograd keeps of an activation: a code of its input, or its output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

from shoestring.activations.fewbit import ops
from shoestring.activations.fewbit.branches import BRANCHED
from shoestring.activations.fewbit.functions import NAMES, Function
from shoestring.activations.fewbit.quantizer import Quantizer
from shoestring.activations.fewbit.second import refuse_second
from shoestring.kernels.codes import order_of


class _Context(Protocol):
    """What autograd hands to forward and backward, as far as it is used here."""

    function: Function
    levels: tuple[float, ...]
    order: tuple[int, ...]
    saved_tensors: tuple[torch.Tensor, ...]

    def save_for_backward(self, *tensors: torch.Tensor) -> None: ...


def keep_codes(x: torch.Tensor, function: Function, table: Quantizer) -> torch.Tensor:
    """Return an activation's values; backward finds the derivative from a code of x.

    Args:
        x: the input.
        function: the activation.
        table: of its derivative.
    """
    run: Callable[..., torch.Tensor] = _Coded.apply
    return run(x, function, table)


def keep_drawn_codes(
    x: torch.Tensor, function: Function, levels: tuple[float, ...], key: torch.Tensor
) -> torch.Tensor:
    """Return an activation's values; backward has the derivative rounded to a level at random.

    Args:
        x: the input.
        function: the activation.
        levels: ascending; 2^bits.
        key: of the random numbers; one int64 number on the CPU.
    """
    run: Callable[..., torch.Tensor] = _Drawn.apply
    return run(x, function, levels, key)


def keep_output(x: torch.Tensor, function: Function) -> torch.Tensor:
    """Return an activation's values; backward finds the derivative from those.

    Args:
        x: the input.
        function: an activation with an ``output_slope``, or of `BRANCHED`.
    """
    run: Callable[..., torch.Tensor] = _Output.apply
    return run(x, function)


class _Coded(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: _Context, x: torch.Tensor, function: Function, table: Quantizer
    ) -> torch.Tensor:
        ctx.function, ctx.levels, ctx.order = function, table.levels, order_of(x) or ()
        coding = (table.borders, table.codes, table.bits, ctx.order)
        if function.name in NAMES:
            y, packed = ops.activate(x, function.name, _values(function), *coding)
        else:
            y, packed = function(x), ops.encode(x, *coding)
        ctx.save_for_backward(packed)
        result: torch.Tensor = y
        return result

    @staticmethod
    def backward(ctx: _Context, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return _from_codes(ctx, grads[0]), None, None


class _Drawn(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: _Context,
        x: torch.Tensor,
        function: Function,
        levels: tuple[float, ...],
        key: torch.Tensor,
    ) -> torch.Tensor:
        ctx.function, ctx.levels, ctx.order = function, levels, order_of(x) or ()
        ctx.save_for_backward(
            ops.encode_by_chance(x, key, function.name, _values(function), levels, ctx.order)
        )
        return function(x)

    @staticmethod
    def backward(ctx: _Context, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return _from_codes(ctx, grads[0]), None, None, None


class _Output(torch.autograd.Function):
    @staticmethod
    def forward(ctx: _Context, x: torch.Tensor, function: Function) -> torch.Tensor:
        ctx.function, ctx.order = function, order_of(x) or ()
        if function.name in BRANCHED:
            y, packed = ops.activate_sides(x, function.name, ctx.order)
        else:
            y, packed = function(x), x.new_empty(0, dtype=torch.uint8)
        ctx.save_for_backward(y, packed)
        result: torch.Tensor = y
        return result

    @staticmethod
    def backward(ctx: _Context, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        refuse_second(f"few-bit {ctx.function.name}")
        name, values = ctx.function.name, _values(ctx.function)
        y, packed = ctx.saved_tensors
        found = ops.multiply_from_output(grads[0], y, packed, name, values, ctx.order)
        return found, None


def _from_codes(ctx: _Context, grad: torch.Tensor) -> torch.Tensor:
    refuse_second(f"few-bit {ctx.function.name}")
    (packed,) = ctx.saved_tensors
    found: torch.Tensor = ops.multiply(grad, packed, ctx.levels, ctx.order)
    return found


def _values(function: Function) -> list[float]:
    return [value for _, value in function.parameters]
