"""Few-bit codes by torch's operators, on any device; what the other forms are compared with."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from shoestring.kernels.codes import Encoder, Loop


def encoding(flat: torch.Tensor, encoder: Encoder, packed: torch.Tensor) -> Loop:
    """Return a loop over blocks that writes the codes of elements; see `codes.encode`.

    Args:
        flat: the elements.
        encoder: borders and codes.
        packed: where the codes go.
    """
    wide = wide_of(flat.dtype)
    borders = table(tuple(encoder.borders), wide, flat)
    codes = table(tuple(encoder.codes), torch.uint8, flat)

    def loop(first: int, last: int) -> None:
        part = flat[64 * first : 64 * last]
        interval = torch.bucketize(part.to(wide), borders, out_int32=True)
        interval.masked_fill_(part.isnan(), 0)
        pack(codes[interval], encoder.bits, packed[_bytes(encoder.bits, first, last)])

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
    wide = wide_of(flat.dtype)
    codes = torch.empty(flat.shape, dtype=torch.uint8, device=flat.device)
    unpack(packed, len(levels).bit_length() - 1, codes)
    factors = table(levels, wide, flat).index_select(0, codes.int())
    out.copy_(factors.mul_(flat))


def pack(codes: torch.Tensor, bits: int, packed: torch.Tensor) -> None:
    """Pack codes; see `codes.pack`.

    Args:
        codes: one a byte.
        bits: of a code.
        packed: where they go.
    """
    missing = -codes.numel() % 64
    blocks = torch.nn.functional.pad(codes, (0, missing)).view(-1, 8, 8)
    places = torch.arange(8, dtype=torch.uint8, device=codes.device)
    planes = packed.view(-1, bits, 8)
    for plane in range(bits):
        bit = (blocks >> plane) & 1
        planes[:, plane] = (bit << places).sum(2, dtype=torch.uint8)


def unpack(packed: torch.Tensor, bits: int, codes: torch.Tensor) -> None:
    """Unpack codes; see `codes.unpack`.

    Args:
        packed: the codes.
        bits: of a code.
        codes: where they go, one a byte.
    """
    planes = packed.view(-1, bits, 8, 1)
    places = torch.arange(8, dtype=torch.uint8, device=codes.device)
    found = torch.zeros(len(planes), 8, 8, dtype=torch.uint8, device=codes.device)
    for plane in range(bits):
        found |= ((planes[:, plane] >> places) & 1) << plane
    codes.copy_(found.view(-1)[: codes.numel()])


def wide_of(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which elements of another are compared and multiplied.

    Args:
        dtype: of the elements.
    """
    return torch.float64 if dtype is torch.float64 else torch.float32


def table(numbers: tuple[float, ...], dtype: torch.dtype, beside: torch.Tensor) -> torch.Tensor:
    """Return some numbers as a tensor, which is not to be changed.

    Args:
        numbers: rounded once.
        dtype: of the tensor.
        beside: what it is used with; the numbers are kept on its device, unless it is a fake.
    """
    made = _kept if type(beside) in (torch.Tensor, torch.nn.Parameter) else _kept.__wrapped__
    return made(numbers, dtype, beside.device)


@functools.lru_cache(256)
def _kept(numbers: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    return torch.tensor(numbers, dtype=dtype, device=device)


def _bytes(bits: int, first: int, last: int) -> slice:
    return slice(8 * bits * first, 8 * bits * last)
