"""Few-bit codes in native code for the CPU, where numba is at hand.

Nothing is imported or compiled before the first call. A thread works on blocks of its own, so the
bits do not depend on the number of threads; no thread outlives a call, so a process that was
forked may make one.
"""

from __future__ import annotations

import functools
import math
import sys
import types
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import torch

from shoestring.kernels import codes_eager
from shoestring.kernels.streams_native import PARALLEL as PARALLEL
from shoestring.kernels.streams_native import share

if TYPE_CHECKING:
    from shoestring.kernels.codes import Encoder, Loop

_DTYPES: Final = (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.uint8)
_LEVELS: Final = 16
"""The most levels that fit a processor's registers."""


def takes(flat: torch.Tensor) -> bool:
    """Return whether there is native code for a tensor.

    Args:
        flat: of one dimension.
    """
    return (
        flat.device.type == "cpu"
        and flat.dtype in _DTYPES
        and type(flat) in (torch.Tensor, torch.nn.Parameter)
        and sys.byteorder == "little"
        and _loops() is not None
    )


def encoding(flat: torch.Tensor, encoder: Encoder, packed: torch.Tensor) -> Loop:
    """Return a loop over blocks that writes the codes of elements; see `codes.encode`.

    Args:
        flat: the elements.
        encoder: borders and codes.
        packed: where the codes go.
    """
    loops, x, words = _compiled(), _array(flat), _words(packed)
    bits, double = encoder.bits, flat.dtype is torch.float64
    borders = _for_search(encoder, double)
    if borders is not None:
        return lambda first, last: loops.encode_by_search(x, borders, words, first, last)
    edges, codes = _for_scan(encoder, double)
    return lambda first, last: loops.encode_by_scan(x, edges, codes, bits, words, first, last)


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
    if len(levels) > _LEVELS:
        codes_eager.multiply(flat, packed, levels, out)
        return
    loops, bits = _compiled(), len(levels).bit_length() - 1
    factors = _rounded(levels, flat.dtype is torch.float64)
    terms = (_array(flat), _words(packed), bits, factors, _array(out))
    shared(lambda first, last: loops.multiply(*terms, first, last), flat)


def pack(codes: torch.Tensor, bits: int, packed: torch.Tensor) -> None:
    """Pack codes; see `codes.pack`.

    Args:
        codes: one a byte.
        bits: of a code.
        packed: where they go.
    """
    loops, terms = _compiled(), (_array(codes), bits, _words(packed))
    shared(lambda first, last: loops.pack(*terms, first, last), codes)


def unpack(packed: torch.Tensor, bits: int, codes: torch.Tensor) -> None:
    """Unpack codes; see `codes.unpack`.

    Args:
        packed: the codes.
        bits: of a code.
        codes: where they go, one a byte.
    """
    loops, terms = _compiled(), (_words(packed), bits, _array(codes))
    shared(lambda first, last: loops.unpack(*terms, first, last), codes)


def shared(loop: Loop, part: torch.Tensor, begin: int = 0) -> None:
    """Run a loop over the blocks of a part of a tensor, on several threads where it pays.

    Args:
        loop: over some blocks, from one to before another.
        part: of one dimension.
        begin: the part's first block.
    """
    blocks = -(-part.numel() // 64)
    if part.device.type != "cpu":
        loop(begin, begin + blocks)
        return
    share(lambda first, last: loop(begin + first, begin + last), blocks, part.numel())


def _array(flat: torch.Tensor) -> npt.NDArray[np.generic]:
    """Return a tensor's memory; of halves their bits, see `codes_numba`."""
    if flat.dtype is torch.float16:
        return flat.view(torch.int16).numpy()
    if flat.dtype is torch.bfloat16:
        return flat.view(torch.int16).numpy().view(np.uint16)
    return flat.numpy()


def _words(packed: torch.Tensor) -> npt.NDArray[np.uint64]:
    return packed.view(-1).numpy().view(np.uint64)


@functools.lru_cache(256)
def _for_search(encoder: Encoder, double: bool) -> tuple[np.floating, ...] | None:
    """Return borders, filled up, where a code is its interval's number and it pays to search."""
    wanted = 2**encoder.bits - 1
    borders = tuple(encoder.borders)
    in_order = tuple(encoder.codes) == tuple(range(len(borders) + 1))
    if not in_order or encoder.bits > 4 or 2 * len(borders) < wanted:
        return None
    return _rounded(borders + (math.inf,) * (wanted - len(borders)), double)


@functools.lru_cache(256)
def _for_scan(
    encoder: Encoder, double: bool
) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.uint32]]:
    wide = np.float64 if double else np.float32
    return np.array(encoder.borders, wide), np.array(encoder.codes, np.uint32)


@functools.lru_cache(256)
def _rounded(numbers: tuple[float, ...], double: bool) -> tuple[np.floating, ...]:
    return tuple(np.array(numbers, np.float64 if double else np.float32))


def _compiled() -> types.ModuleType:
    loops = _loops()
    assert loops is not None
    return loops


@functools.cache
def _loops() -> types.ModuleType | None:
    """Import what numba compiles; None where numba cannot be imported."""
    try:
        from shoestring.kernels import codes_numba
    except ImportError:
        return None
    return codes_numba
