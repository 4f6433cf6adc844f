"""The operators of few-bit backward, as compilers, tracers and dispatch modes see them.

Each has a fake form, so that a model with them is captured, compiled and profiled like any other.
None of them differentiates: `keeping` does that with them. An order is that of the dimensions in
memory, slowest first; an empty one is row by row.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch

from shoestring.activations.fewbit import branches, chance
from shoestring.activations.fewbit.branches import like
from shoestring.activations.fewbit.functions import Function, function
from shoestring.activations.fewbit.into import into
from shoestring.activations.fewbit.pieces import Pieces, rounded_down
from shoestring.kernels import codes as kernels
from shoestring.kernels.codes import Encoder


@torch.library.custom_op("shoestring::few_bit", mutates_args=())
def activate(
    x: torch.Tensor,
    name: str,
    parameters: Sequence[float],
    borders: Sequence[float],
    codes: Sequence[int],
    bits: int,
    order: Sequence[int],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what an activation returns, and the codes of its input.

    Args:
        x: the input.
        name: of the activation.
        parameters: their values, in its own order.
        borders: of the table.
        codes: of its intervals.
        bits: of a code.
        order: of the dimensions.
    """
    known = _function(name, tuple(parameters))
    encoder = _encoder(tuple(borders), tuple(codes), bits, x.dtype, known.pieces)
    return kernels.activate(x, into(known), encoder, order=tuple(order) or None)


@activate.register_fake
def _(
    x: torch.Tensor,
    name: str,
    parameters: Sequence[float],
    borders: Sequence[float],
    codes: Sequence[int],
    bits: int,
    order: Sequence[int],
) -> tuple[torch.Tensor, torch.Tensor]:
    return like(x, order), _packed(x, bits)


@torch.library.custom_op("shoestring::few_bit_sides", mutates_args=())
def activate_sides(
    x: torch.Tensor, name: str, order: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what an activation returns, and on which side of its minimum each input is.

    Args:
        x: the input.
        name: of an activation with one minimum.
        order: of the dimensions.
    """
    encoder = _encoder((branches.branches(name).minimum,), (0, 1), 1, x.dtype)
    return kernels.activate(x, into(function(name)), encoder, order=tuple(order) or None)


@activate_sides.register_fake
def _(x: torch.Tensor, name: str, order: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    return like(x, order), _packed(x, 1)


@torch.library.custom_op("shoestring::few_bit_codes", mutates_args=())
def encode(
    x: torch.Tensor,
    borders: Sequence[float],
    codes: Sequence[int],
    bits: int,
    order: Sequence[int],
) -> torch.Tensor:
    """Return the codes of a tensor.

    Args:
        x: the tensor.
        borders: of the table.
        codes: of its intervals.
        bits: of a code.
        order: of the dimensions.
    """
    encoder = _encoder(tuple(borders), tuple(codes), bits, x.dtype)
    return kernels.encode(x, encoder, order=tuple(order) or None)


@encode.register_fake
def _(
    x: torch.Tensor,
    borders: Sequence[float],
    codes: Sequence[int],
    bits: int,
    order: Sequence[int],
) -> torch.Tensor:
    return _packed(x, bits)


@torch.library.custom_op("shoestring::few_bit_chance", mutates_args=())
def encode_by_chance(
    x: torch.Tensor,
    key: torch.Tensor,
    name: str,
    parameters: Sequence[float],
    levels: Sequence[float],
    order: Sequence[int],
) -> torch.Tensor:
    """Return codes that are drawn so that their levels have the derivative as their mean.

    Args:
        x: the input of the activation.
        key: of the random numbers; one int64 number.
        name: of the activation.
        parameters: their values, in its own order.
        levels: ascending; 2^bits.
        order: of the dimensions.
    """
    known = _function(name, tuple(parameters))
    return chance.encode(x, int(key), known, tuple(levels), order=order)


@encode_by_chance.register_fake
def _(
    x: torch.Tensor,
    key: torch.Tensor,
    name: str,
    parameters: Sequence[float],
    levels: Sequence[float],
    order: Sequence[int],
) -> torch.Tensor:
    return _packed(x, len(levels).bit_length() - 1)


@torch.library.custom_op("shoestring::few_bit_backward", mutates_args=())
def multiply(
    grad: torch.Tensor, packed: torch.Tensor, levels: Sequence[float], order: Sequence[int]
) -> torch.Tensor:
    """Return the gradient of an input from its codes.

    Args:
        grad: of the output.
        packed: the codes.
        levels: what each code stands for.
        order: of the dimensions.
    """
    return kernels.multiply(grad, packed, levels, order=tuple(order) or None)


@multiply.register_fake
def _(
    grad: torch.Tensor, packed: torch.Tensor, levels: Sequence[float], order: Sequence[int]
) -> torch.Tensor:
    return like(grad, order)


@torch.library.custom_op("shoestring::from_output_backward", mutates_args=())
def multiply_from_output(
    grad: torch.Tensor,
    y: torch.Tensor,
    packed: torch.Tensor,
    name: str,
    parameters: Sequence[float],
    order: Sequence[int],
) -> torch.Tensor:
    """Return the gradient of an input from the output.

    Args:
        grad: of the output.
        y: the output.
        packed: for each element one bit, whether the input was above the minimum; empty where the
            output alone decides the derivative.
        name: of the activation.
        parameters: their values, in its own order.
        order: of the dimensions.
    """
    if packed.numel():
        return branches.multiply(grad, y, packed, name, order)
    return branches.multiply_plain(grad, y, _function(name, tuple(parameters)), order)


@multiply_from_output.register_fake
def _(
    grad: torch.Tensor,
    y: torch.Tensor,
    packed: torch.Tensor,
    name: str,
    parameters: Sequence[float],
    order: Sequence[int],
) -> torch.Tensor:
    return like(grad, order)


@functools.lru_cache(maxsize=1024)
def _encoder(
    borders: tuple[float, ...],
    codes: tuple[int, ...],
    bits: int,
    dtype: torch.dtype,
    pieces: Pieces | None = None,
) -> Encoder:
    """Return borders as numbers of a dtype, so that those between two of them never matter."""
    own = rounded_down(borders, dtype) if pieces is None else pieces.borders(dtype)
    return Encoder(own, codes, bits)


@functools.lru_cache(maxsize=1024)
def _function(name: str, parameters: tuple[float, ...]) -> Function:
    names = [key for key, _ in function(name).parameters]
    return function(name, dict(zip(names, parameters, strict=True)))


def _packed(x: torch.Tensor, bits: int) -> torch.Tensor:
    return x.new_empty(8 * bits * ((x.numel() + 63) // 64), dtype=torch.uint8)
