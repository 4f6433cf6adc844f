"""The loops over streams of random signs that numba compiles; imported on first use."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, Final, ParamSpec, TypeAlias, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.numpy_support import carray

P = ParamSpec("P")
R = TypeVar("R")
Floats: TypeAlias = npt.NDArray[np.floating]
Words: TypeAlias = npt.NDArray[np.uint64]

_ONE: Final = np.uint64(1)
_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_FACTORS: Final = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_BY_30, _BY_27, _BY_31, _BY_32 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(32)
_BIT, _BY_16, _LOW = np.uint32(1), np.uint32(16), np.uint32(0xFFFF)
_EXPONENT: Final = np.uint32(0x7F800000)


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile at the first call, without Python's lock; keep the code where there is a folder.

    Args:
        function: with arrays and numbers only.
    """
    try:
        made = numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    except RuntimeError:  # there is no folder that can be written
        made = numba.njit(nogil=True, error_model="numpy")(function)
    return cast("Callable[P, R]", made)


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """Put a function into those that call it, when they are compiled.

    Args:
        function: with arrays and numbers only.
    """
    return cast("Callable[P, R]", numba.njit(inline="always")(function))


@inlined
def word_of(key: np.uint64, index: int) -> np.uint64:
    """Return a word of a stream.

    Args:
        key: of the stream.
        index: of the word.
    """
    x = key + (np.uint64(index) + _ONE) * _GOLDEN
    x = (x ^ (x >> _BY_30)) * _FACTORS[0]
    x = (x ^ (x >> _BY_27)) * _FACTORS[1]
    return x ^ (x >> _BY_31)


@inlined
def settled_to(value: np.floating, radius: np.floating) -> np.floating:
    """Round a value so that a radius can be added and taken away again.

    Args:
        value: of an entry.
        radius: above 0.
    """
    outward = radius if value >= 0 else -radius
    return (value + outward) - outward


@compiled
def _add_rest(
    x: Floats,
    index: int,
    keys: Words,
    scales: Floats,
    decay: np.floating,
    before: int,
    radius: np.floating,
    settled: int,
) -> None:
    """Add the words of one index to up to 64 elements."""
    for j in range(keys.size + 1):
        if j == before:
            for e in range(x.size):
                x[e] *= decay
        if j == settled and radius > 0:
            for e in range(x.size):
                x[e] = settled_to(x[e], radius)
        if j == keys.size:
            break
        word, scale = word_of(keys[j], index), scales[j]
        for e in range(x.size):
            x[e] += -scale if (word >> np.uint64(e)) & _ONE else scale


@inlined
def _sign(bits: np.uint32, b: int) -> np.int32:
    """Return what a bit says, by arithmetic: of a choice the compiler makes no vector code."""
    return np.int32(1) - np.int32(((bits >> np.uint32(b)) & _BIT) << _BIT)


@inlined
def _add_word(rows: Floats, index: int, word: np.uint64, scale: np.floating) -> None:
    """Add the signs of 64 bits to a row, in lanes as wide as a float."""
    first_half, second_half = np.uint32(word), np.uint32(word >> _BY_32)
    for b in range(32):
        rows[index, b] += scale * rows.dtype.type(_sign(first_half, b))
    for b in range(32):
        rows[index, 32 + b] += scale * rows.dtype.type(_sign(second_half, b))


@compiled
def add_plain(
    x: Floats,
    keys: Words,
    scales: Floats,
    decay: np.floating,
    before: int,
    radius: np.floating,
    settled: int,
    first: int,
    last: int,
) -> None:
    """Add streams to float32 or float64; see `stages.Stages`.

    Args:
        x: changed in place; contiguous.
        keys: of the streams.
        scales: one for each, in the dtype of x.
        decay: what x is multiplied with.
        before: terms that are added before that.
        radius: that x is settled for; 0 for none.
        settled: terms that are added before that.
        first: word to begin with.
        last: word to end before.
    """
    full = x.size // 64
    rows = x[: 64 * full].reshape(full, 64)  # the compiler knows their length
    for index in range(first, min(last, full)):
        for j in range(keys.size + 1):
            if j == before and decay != 1:
                for b in range(64):
                    rows[index, b] *= decay
            if j == settled and radius > 0:
                for b in range(64):
                    rows[index, b] = settled_to(rows[index, b], radius)
            if j == keys.size:
                break
            _add_word(rows, index, word_of(keys[j], index), scales[j])
    if first <= full < last:
        _add_rest(x[64 * full :], full, keys, scales, decay, before, radius, settled)


def _as_pointer(_: object, address: Any) -> object:
    """Make an address a pointer, in the code that is compiled."""

    def generate(_: object, builder: Any, __: object, given: Any) -> Any:
        return builder.inttoptr(given[0], cgutils.voidptr_t)

    return numba.types.voidptr(address), generate


_pointer = cast("Callable[[np.int64], ctypes.c_void_p]", intrinsic(_as_pointer))


@compiled
def add_plain_all(
    addresses: npt.NDArray[np.int64],
    sizes: npt.NDArray[np.int64],
    keys: Words,
    scales: npt.NDArray[np.float32],
    decays: npt.NDArray[np.float32],
    before: int,
    radii: npt.NDArray[np.float32],
    settled: int,
) -> None:
    """Add streams to many float32 arrays: a call costs more than a small array.

    Args:
        addresses: of the arrays.
        sizes: of the arrays, in elements.
        keys: ``[arrays, terms]``, as for `add_plain`.
        scales: ``[arrays, terms]``.
        decays: one for each array.
        before: as for `add_plain`.
        radii: one for each array.
        settled: as for `add_plain`.
    """
    for k in range(addresses.size):
        x = carray(_pointer(addresses[k]), sizes[k], np.float32)
        words = (sizes[k] + 63) // 64
        add_plain(x, keys[k], scales[k], decays[k], before, radii[k], settled, 0, words)


@compiled
def add_half(
    x: npt.NDArray[np.uint16],
    keys: Words,
    scales: Floats,
    decay: np.floating,
    before: int,
    radius: np.floating,
    settled: int,
    first: int,
    last: int,
    rounding: np.uint64,
    at_random: bool,
) -> None:
    """Add streams to bfloat16, given as its bits; sums are made in float32, rounded once.

    Args:
        x: changed in place.
        keys: as for `add_plain`.
        scales: in float32.
        decay: as for `add_plain`.
        before: as for `add_plain`.
        radius: as for `add_plain`.
        settled: as for `add_plain`.
        first: as for `add_plain`.
        last: as for `add_plain`.
        rounding: key of the stream that rounds.
        at_random: whether it does; else to nearest, ties to even.
    """
    for index in range(first, last):
        begin = 64 * index
        count = min(64, x.size - begin)
        sums = np.empty(count, np.float32)
        for b in range(count):
            sums[b] = np.uint32(np.uint32(x[begin + b]) << _BY_16).view(np.float32)
        _add_rest(sums, index, keys, scales, decay, before, radius, settled)
        for b in range(count):
            bits = np.float32(sums[b]).view(np.uint32)
            if bits & _EXPONENT == _EXPONENT:  # infinite, or no number: its first bits say so
                x[begin + b] = np.uint16(bits >> _BY_16)
                continue
            if at_random:
                noise = word_of(rounding, 16 * index + b // 4) >> np.uint64(16 * (b % 4))
                added = np.uint32(noise) & _LOW
            else:
                added = np.uint32(0x7FFF) + ((bits >> _BY_16) & _BIT)  # ties go to even
            x[begin + b] = np.uint16(np.uint32(bits + added) >> _BY_16)
