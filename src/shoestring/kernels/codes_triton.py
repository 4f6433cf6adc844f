"""Few-bit codes on CUDA by Triton, imported only where it is used; see `codes`.

A program works on some blocks of 64 elements. What takes no time there is done by torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast, no_type_check

import torch
import triton
import triton.language as tl

from shoestring.kernels import codes_eager
from shoestring.kernels.codes_eager import pack as pack
from shoestring.kernels.codes_eager import unpack as unpack

if TYPE_CHECKING:
    from shoestring.kernels.codes import Encoder, Loop

_ROWS: Final = 16
"""Blocks of a program."""


def _jit(function: Callable[..., None]) -> Any:
    return cast("Any", triton.jit(function))


def encoding(flat: torch.Tensor, encoder: Encoder, packed: torch.Tensor) -> Loop:
    """Return a loop over blocks that writes the codes of elements; see `codes.encode`.

    Args:
        flat: the elements.
        encoder: borders and codes.
        packed: where the codes go.
    """
    bits, wide = encoder.bits, codes_eager.wide_of(flat.dtype)
    borders = codes_eager.table(tuple(encoder.borders), wide, flat)
    codes = codes_eager.table(tuple(encoder.codes), torch.uint8, flat)

    def loop(first: int, last: int) -> None:
        part, place = flat[64 * first : 64 * last], packed[8 * bits * first : 8 * bits * last]
        if last > first:
            with torch.cuda.device_of(flat):
                _encode[_grid(part)](part, borders, codes, place, part.numel(), len(borders), bits)

    return loop


def multiply(
    flat: torch.Tensor, packed: torch.Tensor, levels: tuple[float, ...], out: torch.Tensor
) -> None:
    """Multiply elements with the levels that their codes name; see `codes.multiply`.

    Args:
        flat: the elements.
        packed: their codes.
        levels: one for each code.
        out: where the products go.
    """
    bits = len(levels).bit_length() - 1
    factors = codes_eager.table(levels, codes_eager.wide_of(flat.dtype), flat)
    short = flat.dtype is torch.bfloat16
    place = out.view(torch.int16) if short else out
    if flat.numel():
        with torch.cuda.device_of(flat):
            _multiply[_grid(flat)](flat, packed, factors, place, flat.numel(), bits, short)


def _grid(flat: torch.Tensor) -> tuple[int]:
    return (triton.cdiv(flat.numel(), 64 * _ROWS),)


@_jit
@no_type_check
def _encode(x, borders, codes, packed, count, edges, bits: tl.constexpr):
    rows: tl.constexpr = 16
    blocks = tl.program_id(0).to(tl.int64) * rows + tl.arange(0, rows)
    places = blocks[:, None] * 64 + tl.arange(0, 64)[None, :]
    inside = places < count
    values = tl.load(x + places, mask=inside, other=0.0).to(borders.dtype.element_ty)
    found = tl.zeros((rows, 64), tl.int32) + tl.load(codes).to(tl.int32)
    for j in range(edges):
        after = tl.load(codes + j + 1).to(tl.int32)
        found = tl.where(values > tl.load(borders + j), after, found)
    found = tl.where(inside, found, 0)
    bytes_of = tl.reshape(found, (rows, 8, 8))
    weights = (1 << tl.arange(0, 8))[None, None, :]
    ends = blocks[:, None] * (8 * bits) + tl.arange(0, 8)[None, :]
    kept = (blocks * 64 < count)[:, None]
    for plane in tl.static_range(bits):
        plane_bytes = tl.sum(((bytes_of >> plane) & 1) * weights, axis=2)
        tl.store(packed + ends + 8 * plane, plane_bytes.to(tl.uint8), mask=kept)


@_jit
@no_type_check
def _multiply(grad, packed, levels, out, count, bits: tl.constexpr, short: tl.constexpr):
    rows: tl.constexpr = 16
    places = tl.program_id(0).to(tl.int64) * (64 * rows) + tl.arange(0, 64 * rows)
    inside = places < count
    values = tl.load(grad + places, mask=inside, other=0.0).to(levels.dtype.element_ty)
    first = packed + (places // 64) * (8 * bits) + (places % 64) // 8
    found = tl.zeros((64 * rows,), tl.int32)
    for plane in tl.static_range(bits):
        plane_byte = tl.load(first + 8 * plane, mask=inside, other=0).to(tl.int32)
        found |= ((plane_byte >> (places % 8).to(tl.int32)) & 1) << plane
    product = tl.load(levels + found) * values
    if short:  # rounded by hand: how a conversion to bfloat16 does it is not the same everywhere
        word = product.to(tl.int32, bitcast=True)
        rounded = (word + 0x7FFF + ((word >> 16) & 1)) >> 16
        kept = tl.where((word & 0x7FFFFFFF) > 0x7F800000, 0x7FC0, rounded).to(tl.int16)
    else:
        kept = product.to(out.dtype.element_ty)
    tl.store(out + places, kept, mask=inside)
