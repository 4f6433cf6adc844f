"""The loops over blocks of 64 elements that numba compiles; imported on first use, see `codes`.

A comparison of 64 floats is a mask of 64 bits, and that is a plane of a packed block. A loop over
elements does not become such code; here numba's compiler is told so in its own language, and finds
the instructions of the processor for it. All is in one file, since numba keeps compiled code until
the file of a loop changes.

An element is what a numpy array can hold: ``int16`` stands for the bits of float16, ``uint16`` for
those of bfloat16; both are computed with as float32. An incomplete block at the end is worked on in
a copy; its bits beyond the last element are zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias, cast

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numba.np import arrayobj

from shoestring.kernels.streams_numba import Floats, Words, compiled

Bytes: TypeAlias = npt.NDArray[np.uint8]
Elements: TypeAlias = npt.NDArray[np.generic]

LANES: Final = 64
_BYTE, _HALF_WORD, _INT, _WORD = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_BITS: Final = ir.VectorType(ir.IntType(1), LANES)
_FLOAT: Final = ir.FloatType()
_ONE: Final = np.uint64(1)
_numba: Final[Any] = cgutils
_arrays: Final[Any] = arrayobj
"""numba's helpers, which have no annotations."""
_SIZES: Final = {"float": 4, "double": 8}


def _lanes(element: Any) -> Any:
    return ir.VectorType(element, LANES)


def _same(element: Any, value: int) -> Any:
    """Return a constant in every lane."""
    return ir.Constant(_lanes(element), [value] * LANES)


def _spread(builder: Any, value: Any) -> Any:
    """Return a scalar in every lane."""
    kind = _lanes(value.type)
    nothing, first = ir.Constant(kind, ir.Undefined), ir.Constant(_INT, 0)
    one = builder.insert_element(nothing, value, first)
    return builder.shuffle_vector(one, nothing, _same(_INT, 0))


def _place(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    """Return the address of an entry of an array."""
    return builder.gep(_arrays.make_array(kind)(context, builder, array).data, [index])


def _load(builder: Any, address: Any, element: Any) -> Any:
    """Read 64 entries; an array is aligned to its entries, not to vectors."""
    kind = _lanes(element)
    size = element.width // 8 if isinstance(element, ir.IntType) else _SIZES[str(element)]
    return builder.load(builder.bitcast(address, kind.as_pointer()), align=size)


def _store(builder: Any, values: Any, address: Any, size: int) -> None:
    builder.store(values, builder.bitcast(address, values.type.as_pointer()), align=size)


def _read(builder: Any, kind: Any, address: Any) -> Any:
    """Return 64 elements as floats that can be computed with."""
    if kind.dtype == types.int16:
        return _from_half(builder, _load(builder, address, _HALF_WORD))
    if kind.dtype == types.uint16:
        bits = builder.zext(_load(builder, address, _HALF_WORD), _lanes(_INT))
        return builder.bitcast(builder.shl(bits, _same(_INT, 16)), _lanes(_FLOAT))
    return _load(builder, address, ir.DoubleType() if kind.dtype == types.float64 else _FLOAT)


def _write(builder: Any, kind: Any, values: Any, address: Any) -> None:
    """Keep 64 floats as elements, rounded to nearest, ties to even."""
    if kind.dtype == types.int16:
        values = _rounded_to_half(builder, values)
    elif kind.dtype == types.uint16:
        values = _rounded_to_bfloat(builder, values)
    _store(builder, values, address, kind.dtype.bitwidth // 8)


def _from_half(builder: Any, halves: Any) -> Any:
    """Widen float16 by arithmetic: without instructions for it the compiler has no code for it."""
    bits = builder.zext(halves, _lanes(_INT))
    size = builder.and_(bits, _same(_INT, 0x7FFF))
    sign = builder.shl(builder.and_(bits, _same(_INT, 0x8000)), _same(_INT, 16))
    moved = builder.bitcast(builder.shl(size, _same(_INT, 13)), _lanes(_FLOAT))
    scaled = builder.fmul(moved, ir.Constant(_lanes(_FLOAT), [2.0**112] * LANES))
    finite = builder.bitcast(scaled, _lanes(_INT))
    other = builder.or_(finite, _same(_INT, 0x7F800000))
    is_other = builder.icmp_unsigned(">=", size, _same(_INT, 0x7C00))
    found = builder.or_(builder.select(is_other, other, finite), sign)
    return builder.bitcast(found, _lanes(_FLOAT))


def _rounded_to_half(builder: Any, values: Any) -> Any:
    bits = builder.bitcast(values, _lanes(_INT))
    size = builder.and_(bits, _same(_INT, 0x7FFFFFFF))
    sign = builder.lshr(builder.xor(bits, size), _same(_INT, 16))
    # From 2^-14 on the exponent moves by 112, and 13 bits are rounded away; from 65520 on infinite.
    normal = builder.sub(_rounded_away(builder, size, 13), _same(_INT, 112 << 10))
    too_large = builder.icmp_unsigned(">", normal, _same(_INT, 0x7C00))
    normal = builder.select(too_large, _same(_INT, 0x7C00), normal)
    # Below it, the last place of float16 is that of float32 between a half and 1.
    half = ir.Constant(_lanes(_FLOAT), [0.5] * LANES)
    raised = builder.fadd(builder.bitcast(size, _lanes(_FLOAT)), half)
    small = builder.sub(builder.bitcast(raised, _lanes(_INT)), _same(_INT, 0x3F000000))
    is_small = builder.icmp_unsigned("<", size, _same(_INT, 0x38800000))
    found = builder.or_(builder.select(is_small, small, normal), sign)
    return _halves(builder, values, found, 0x7E00)


def _rounded_to_bfloat(builder: Any, values: Any) -> Any:
    rounded = _rounded_away(builder, builder.bitcast(values, _lanes(_INT)), 16)
    return _halves(builder, values, rounded, 0x7FC0)


def _rounded_away(builder: Any, bits: Any, count: int) -> Any:
    """Round some bits away, to nearest; ties go to even."""
    by = _same(_INT, count)
    odd = builder.and_(builder.lshr(bits, by), _same(_INT, 1))
    added = builder.add(odd, _same(_INT, (1 << (count - 1)) - 1))
    return builder.lshr(builder.add(bits, added), by)


def _halves(builder: Any, values: Any, found: Any, no_number: int) -> Any:
    """Return the low halves of words, with what stands for no number where there is none."""
    is_none = builder.fcmp_unordered("uno", values, values)
    chosen = builder.select(is_none, _same(_INT, no_number), found)
    return builder.trunc(chosen, _lanes(_HALF_WORD))


def _each_plane(builder: Any, bits: Any, do: Callable[[Any], None]) -> None:
    with _numba.for_range(builder, bits) as loop:
        do(loop.index)


def _keep_planes(builder: Any, codes: Any, bits: Any, words: Any) -> None:
    """Write bit p of 64 codes as word p."""
    element = codes.type.element

    def keep(plane: Any) -> None:
        shift = builder.trunc(plane, element)
        bit = builder.shl(ir.Constant(element, 1), shift)
        is_set = builder.and_(codes, _spread(builder, bit))
        mask = builder.icmp_unsigned("!=", is_set, _same(element, 0))
        builder.store(builder.bitcast(mask, _WORD), builder.gep(words, [plane]))

    _each_plane(builder, bits, keep)


def _scan(
    _: object, x: Any, begin: Any, borders: Any, codes: Any, words: Any, place: Any, bits: Any
) -> Any:
    """Go through all borders: the last one below an element says its code."""

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        arrays = signature.args
        values = _read(builder, x, _place(context, builder, arrays[0], given[0], given[1]))
        zero, one = ir.Constant(_WORD, 0), ir.Constant(_WORD, 1)
        border = _place(context, builder, arrays[2], given[2], zero)
        code = _place(context, builder, arrays[3], given[3], zero)
        found = _numba.alloca_once(builder, _lanes(_INT))
        builder.store(_spread(builder, builder.load(code)), found)
        count = _arrays.make_array(arrays[2])(context, builder, given[2]).nitems
        with _numba.for_range(builder, count) as loop:
            edge = _spread(builder, builder.load(builder.gep(border, [loop.index])))
            after = builder.load(builder.gep(code, [builder.add(loop.index, one)]))
            above = builder.fcmp_ordered(">", values, edge)
            both = _spread(builder, after), builder.load(found)
            builder.store(builder.select(above, *both), found)
        first = _place(context, builder, arrays[4], given[4], given[5])
        _keep_planes(builder, builder.load(found), given[6], first)
        return context.get_dummy_value()

    return types.void(x, begin, borders, codes, words, place, bits), generate


def _search(_: object, x: Any, begin: Any, borders: Any, words: Any, place: Any) -> Any:
    """Halve the borders once for each plane: what a comparison says is the plane."""

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        arrays = signature.args
        values = _read(builder, x, _place(context, builder, arrays[0], given[0], given[1]))
        edges = [_spread(builder, e) for e in _numba.unpack_tuple(builder, given[2])]
        first = _place(context, builder, arrays[3], given[3], given[4])
        masks: list[Any] = []
        for plane in reversed(range(len(edges).bit_length())):
            edge = _middle(builder, edges, masks)
            masks.append(builder.fcmp_ordered(">", values, edge))
            word = builder.gep(first, [ir.Constant(_WORD, plane)])
            builder.store(builder.bitcast(masks[-1], _WORD), word)
        return context.get_dummy_value()

    return types.void(x, begin, borders, words, place), generate


def _middle(builder: Any, edges: Sequence[Any], masks: Sequence[Any]) -> Any:
    """Return the middle of the borders that are left after some answers."""
    half = len(edges) // 2
    if not masks:
        return edges[half]
    upper, lower = edges[half + 1 :], edges[:half]
    both = _middle(builder, upper, masks[1:]), _middle(builder, lower, masks[1:])
    return builder.select(masks[0], *both)


def _multiply(
    _: object, grad: Any, begin: Any, words: Any, place: Any, levels: Any, out: Any
) -> Any:
    """Choose among the levels by one plane after the other."""

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        arrays = signature.args
        values = _read(builder, grad, _place(context, builder, arrays[0], given[0], given[1]))
        first = _place(context, builder, arrays[2], given[2], given[3])
        left = [_spread(builder, level) for level in _numba.unpack_tuple(builder, given[4])]
        for plane in range(len(left).bit_length() - 1):
            word = builder.load(builder.gep(first, [ir.Constant(_WORD, plane)]))
            mask = builder.bitcast(word, _BITS)
            pairs = zip(left[1::2], left[::2], strict=True)
            left = [builder.select(mask, above, below) for above, below in pairs]
        product = builder.fmul(values, left[0])
        _write(builder, out, product, _place(context, builder, arrays[5], given[5], given[1]))
        return context.get_dummy_value()

    return types.void(grad, begin, words, place, levels, out), generate


def _pack(_: object, codes: Any, begin: Any, words: Any, place: Any, bits: Any) -> Any:
    """Write the planes of 64 codes."""

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        arrays = signature.args
        start = _place(context, builder, arrays[0], given[0], given[1])
        first = _place(context, builder, arrays[2], given[2], given[3])
        _keep_planes(builder, _load(builder, start, _BYTE), given[4], first)
        return context.get_dummy_value()

    return types.void(codes, begin, words, place, bits), generate


def _unpack(_: object, words: Any, place: Any, bits: Any, codes: Any, begin: Any) -> Any:
    """Put 64 codes together from their planes."""

    def generate(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        arrays = signature.args
        first = _place(context, builder, arrays[0], given[0], given[1])
        found = _numba.alloca_once(builder, _lanes(_BYTE))
        builder.store(_same(_BYTE, 0), found)

        def add(plane: Any) -> None:
            mask = builder.bitcast(builder.load(builder.gep(first, [plane])), _BITS)
            shift = builder.trunc(plane, _BYTE)
            bit = _spread(builder, builder.shl(ir.Constant(_BYTE, 1), shift))
            chosen = builder.select(mask, bit, _same(_BYTE, 0))
            builder.store(builder.or_(builder.load(found), chosen), found)

        _each_plane(builder, given[2], add)
        start = _place(context, builder, arrays[3], given[3], given[4])
        _store(builder, builder.load(found), start, 1)
        return context.get_dummy_value()

    return types.void(words, place, bits, codes, begin), generate


_scan_block = cast(
    "Callable[[Elements, int, Floats, npt.NDArray[np.uint32], Words, int, int], None]",
    intrinsic(_scan),
)
_search_block = cast(
    "Callable[[Elements, int, tuple[np.floating, ...], Words, int], None]", intrinsic(_search)
)
_multiply_block = cast(
    "Callable[[Elements, int, Words, int, tuple[np.floating, ...], Elements], None]",
    intrinsic(_multiply),
)
_pack_block = cast("Callable[[Elements, int, Words, int, int], None]", intrinsic(_pack))
_unpack_block = cast("Callable[[Words, int, int, Bytes, int], None]", intrinsic(_unpack))


@compiled
def _completed(x: Elements) -> Elements:
    """Return less than 64 elements with zeros after them."""
    block = np.zeros(64, x.dtype)
    block[: x.size] = x
    return block


@compiled
def _clear(words: Words, place: int, bits: int, count: int) -> None:
    """Clear the bits of a block from some element on."""
    for plane in range(bits):
        words[place + plane] &= (_ONE << np.uint64(count)) - _ONE


@compiled
def encode_by_scan(
    x: Elements,
    borders: Floats,
    codes: npt.NDArray[np.uint32],
    bits: int,
    words: Words,
    first: int,
    last: int,
) -> None:
    """Write the codes of some blocks, with any codes for the intervals.

    Args:
        x: the elements.
        borders: ascending.
        codes: of the intervals, one more.
        bits: of a code.
        words: packed; written.
        first: block to begin with.
        last: block to end before.
    """
    full = x.size // 64
    for k in range(first, min(last, full)):
        _scan_block(x, 64 * k, borders, codes, words, bits * k, bits)
    if first <= full < last:
        rest = x[64 * full :]
        _scan_block(_completed(rest), 0, borders, codes, words, bits * full, bits)
        _clear(words, bits * full, bits, rest.size)


@compiled
def encode_by_search(
    x: Elements, borders: tuple[np.floating, ...], words: Words, first: int, last: int
) -> None:
    """Write the codes of some blocks, where an interval's code is its number.

    Args:
        x: the elements.
        borders: ascending; as many as there are codes, less one.
        words: packed; written.
        first: block to begin with.
        last: block to end before.
    """
    full, bits = x.size // 64, 0
    while (1 << bits) <= len(borders):
        bits += 1
    for k in range(first, min(last, full)):
        _search_block(x, 64 * k, borders, words, bits * k)
    if first <= full < last:
        rest = x[64 * full :]
        _search_block(_completed(rest), 0, borders, words, bits * full)
        _clear(words, bits * full, bits, rest.size)


@compiled
def multiply(
    grad: Elements,
    words: Words,
    bits: int,
    levels: tuple[np.floating, ...],
    out: Elements,
    first: int,
    last: int,
) -> None:
    """Multiply some blocks with the levels that their codes name.

    Args:
        grad: the elements.
        words: packed codes.
        bits: of a code.
        levels: one for each code.
        out: written; may be grad.
        first: block to begin with.
        last: block to end before.
    """
    full = grad.size // 64
    for k in range(first, min(last, full)):
        _multiply_block(grad, 64 * k, words, bits * k, levels, out)
    if first <= full < last:
        block = _completed(grad[64 * full :])
        _multiply_block(block, 0, words[bits * full :], 0, levels, block)
        out[64 * full :] = block[: grad.size - 64 * full]


@compiled
def pack(codes: Bytes, bits: int, words: Words, first: int, last: int) -> None:
    """Pack some blocks of codes.

    Args:
        codes: one a byte.
        bits: of a code.
        words: packed; written.
        first: block to begin with.
        last: block to end before.
    """
    full = codes.size // 64
    for k in range(first, min(last, full)):
        _pack_block(codes, 64 * k, words, bits * k, bits)
    if first <= full < last:
        _pack_block(_completed(codes[64 * full :]), 0, words, bits * full, bits)


@compiled
def unpack(words: Words, bits: int, codes: Bytes, first: int, last: int) -> None:
    """Unpack some blocks of codes.

    Args:
        words: packed codes.
        bits: of a code.
        codes: one a byte; written.
        first: block to begin with.
        last: block to end before.
    """
    full = codes.size // 64
    for k in range(first, min(last, full)):
        _unpack_block(words, bits * k, bits, codes, 64 * k)
    if first <= full < last:
        block = np.zeros(64, np.uint8)
        _unpack_block(words, bits * full, bits, block, 0)
        codes[64 * full :] = block[: codes.size - 64 * full]
