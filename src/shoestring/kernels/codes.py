r"""Few-bit codes of numbers: found, packed, and looked up again.

An activation's derivative, rounded to a few levels, is a code of 1 to 8 bits for each element. The
borders :math:`s_1 \le \dots \le s_m` cut the line into :math:`m + 1` intervals, and each of these
has a code. All forms of these functions (plain torch operators, native code for the CPU, Triton for
CUDA) give the same bits.

**Intervals.** The interval of x is the number of borders strictly below it. Numbers of float64 are
compared in float64, all others in float32, to which the borders are rounded once. NaN is in
interval 0, as is minus infinity.

**Packed codes.** Elements go in blocks of 64, of which the last is filled up with codes of 0. A
block is one word of 64 bits for each bit of a code, low byte first: bit e of word p is bit p of
the code of element e. So there are ``8 * bits * ceil(n / 64)`` bytes, for any width.

**Order.** Elements are taken row by row, whatever the strides. A tensor whose memory is dense in
another order, as after a transposition or in channels-last format, would have to be copied for
that: `order_of` says its order, and with ``order=`` it is worked on as it lies. The gradient is
then brought to the same order.

**Products.** ``levels[code] * grad`` is made in float32, or in float64 for float64, and rounded
once to the gradient's dtype, as torch's own derivatives do it. Infinite levels aside, only which
NaN it is may differ between forms.

A function may be called from any thread, and in a child after a fork.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol, TypeAlias, cast

import torch
from torch.autograd.graph import increment_version

from shoestring.core.errors import InputError
from shoestring.kernels import codes_eager, codes_native

Loop: TypeAlias = Callable[[int, int], None]
"""Does something with the blocks from one to before another."""

BLOCK: Final = 64
CHUNK: Final = 1 << 18
"""Elements whose function is computed and which are encoded at a time on one thread of a CPU."""

_FLOATS: Final = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


@dataclasses.dataclass(frozen=True, slots=True)
class Encoder:
    r"""Which code an element gets.

    Args:
        borders: :math:`s_1 \le \dots \le s_m`, finite.
        codes: of the m + 1 intervals between them, from 0 to before ``2**bits``.
        bits: of a code, 1 to 8.

    Raises:
        InputError: the borders do not ascend, or codes and borders do not fit together.

    Example:
        >>> Encoder([-1.0, 1.0], [0, 1, 0], bits=1).codes
        (0, 1, 0)
    """

    borders: Sequence[float]
    codes: Sequence[int]
    bits: int

    def __post_init__(self) -> None:
        borders, codes = tuple(map(float, self.borders)), tuple(map(int, self.codes))
        object.__setattr__(self, "borders", borders)
        object.__setattr__(self, "codes", codes)
        _check_bits(self.bits)
        if list(borders) != sorted(borders) or not all(map(math.isfinite, borders)):
            raise InputError("borders do not ascend.", hint="sort them, and leave out infinities.")
        if len(codes) != len(borders) + 1:
            raise InputError(
                f"{len(codes)} codes are not one for each interval of {len(borders)} borders.",
                hint="give one code more than there are borders.",
            )
        if not all(0 <= code < 2**self.bits for code in codes):
            raise InputError(
                f"a code has no place in {self.bits} bits.",
                hint="take more bits, or smaller codes.",
            )


def packed_size(count: int, bits: int) -> int:
    """Return the bytes of packed codes: ``8 * bits * ceil(count / 64)``.

    Args:
        count: of codes.
        bits: of a code.

    Example:
        >>> packed_size(1000, 3)
        384
    """
    return 8 * bits * _blocks(count)


def order_of(x: torch.Tensor) -> tuple[int, ...] | None:
    """Return the order in which a tensor's dimensions lie in memory, slowest first.

    Args:
        x: of any strides.

    Returns:
        A permutation of the dimensions; None where it is row by row already, or where the memory
        is not dense, so that there is nothing to gain.

    Example:
        >>> order_of(torch.zeros(2, 3)), order_of(torch.zeros(2, 3).t())
        (None, (1, 0))
    """
    if x.is_contiguous():
        return None
    order = tuple(sorted(range(x.dim()), key=x.stride, reverse=True))
    return order if x.permute(order).is_contiguous() else None


def encode(
    x: torch.Tensor,
    encoder: Encoder,
    *,
    order: Sequence[int] | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the packed codes of a tensor's elements.

    Args:
        x: of float32, bfloat16, float16 or float64.
        encoder: borders and codes.
        order: of the dimensions, as `order_of` gives it; by default row by row.
        out: where to write; uint8, contiguous, of `packed_size`.

    Returns:
        uint8, of one dimension.

    Raises:
        InputError: the dtype is another, or order or out do not fit.

    Example:
        >>> x = torch.tensor([-2.0, 0.5, 3.0])
        >>> packed = encode(x, Encoder([-1.0, 1.0], [0, 1, 2], bits=2))
        >>> unpack(packed, 2, 3).tolist()
        [0, 1, 2]
    """
    flat = _flat(x, order)
    packed = _packed(out, flat, encoder.bits)
    loop = _form(flat).encoding(flat, encoder, packed)
    codes_native.shared(loop, flat)
    _written(out)
    return packed


def activate(
    x: torch.Tensor,
    function: Callable[..., torch.Tensor],
    encoder: Encoder,
    *,
    order: Sequence[int] | None = None,
    out: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a function of a tensor's elements, and their packed codes, reading them once.

    On a CPU this goes by chunks that fit its cache. The values are, bit for bit, those of the
    function for all elements in one row. For a tensor that is not contiguous torch may round
    otherwise: its gelu takes other code then.

    Args:
        x: of float32, bfloat16, float16 or float64.
        function: called as ``function(part, out=y)`` without gradients, with tensors of one
            dimension, as in ``torch.ops.aten.gelu.out``; it must treat each element alike. If it
            returns another tensor than y, that is copied to y.
        encoder: borders and codes.
        order: of the dimensions, as `order_of` gives it; by default row by row.
        out: where to write both; the first like x and dense in its order, or x itself.

    Returns:
        The values, of x's shape and dense in its order, and the packed codes, uint8.

    Raises:
        InputError: the dtype is another, or order or out do not fit.

    Example:
        >>> step = Encoder([0.0], [0, 1], bits=1)
        >>> y, packed = activate(torch.tensor([-1.0, 2.0]), torch.ops.aten.gelu.out, step)
        >>> unpack(packed, 1, 2).tolist()
        [0, 1]
    """
    flat = _flat(x, order)
    y, flat_y = _like(x, order, None if out is None else out[0])
    packed = _packed(None if out is None else out[1], flat, encoder.bits)
    loop = _form(flat).encoding(flat, encoder, packed)
    with torch.no_grad():
        for begin, end in _chunks(flat):
            part, place = flat[begin:end], flat_y[begin:end]
            codes_native.shared(loop, part, begin // BLOCK)  # first: out may be x
            made = function(part, out=place)
            if made is not place:
                place.copy_(made)
    if out is not None:
        _written(out[0])
        _written(out[1])
    return y, packed


def multiply(
    grad: torch.Tensor,
    packed: torch.Tensor,
    levels: Sequence[float],
    *,
    order: Sequence[int] | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    r"""Return ``levels[code] * grad`` for packed codes.

    Args:
        grad: of float32, bfloat16, float16 or float64.
        packed: codes of its elements, as `encode` gives them.
        levels: one for each of the :math:`2^b` codes.
        order: with which the codes were found.
        out: where to write; like grad and dense in its order, or grad itself.

    Returns:
        Of grad's shape and dtype, dense in the order of the codes.

    Raises:
        InputError: levels, codes and grad do not fit together, or the dtype is another.

    Example:
        >>> packed = pack(torch.tensor([1, 0], dtype=torch.uint8), bits=1)
        >>> multiply(torch.tensor([3.0, 5.0]), packed, [0.5, 2.0]).tolist()
        [6.0, 2.5]
    """
    bits = len(levels).bit_length() - 1
    if len(levels) != 2**bits or not 1 <= bits <= 8:
        raise InputError(
            f"{len(levels)} levels are not one for each code.", hint="give 2, 4, 8, ... or 256."
        )
    flat = _flat(grad, order)
    _packed(packed, flat, bits)
    result, flat_result = _like(grad, order, out)
    _form(flat).multiply(flat, packed, tuple(levels), flat_result)
    _written(out)
    return result


def pack(codes: torch.Tensor, bits: int, *, out: torch.Tensor | None = None) -> torch.Tensor:
    """Pack codes that stand one in a byte, row by row.

    Args:
        codes: uint8 or bool, below ``2**bits``; higher bits are lost.
        bits: of a code, 1 to 8.
        out: where to write; uint8, contiguous, of `packed_size`.

    Returns:
        uint8, of one dimension.

    Raises:
        InputError: bits, dtype or out do not fit.

    Example:
        >>> pack(torch.tensor([True, False, True]), bits=1).tolist()
        [5, 0, 0, 0, 0, 0, 0, 0]
    """
    _check_bits(bits)
    if codes.dtype not in (torch.uint8, torch.bool):
        raise InputError(f"codes of {codes.dtype} are not packed.", hint="make them uint8 or bool.")
    flat = codes.detach().contiguous().view(-1).view(torch.uint8)
    packed = _packed(out, flat, bits)
    _form(flat).pack(flat, bits, packed)
    _written(out)
    return packed


def unpack(packed: torch.Tensor, bits: int, count: int) -> torch.Tensor:
    """Return codes one in a byte.

    Args:
        packed: as `encode` or `pack` gives them.
        bits: of a code, 1 to 8.
        count: of codes.

    Returns:
        uint8, of one dimension.

    Raises:
        InputError: the packed codes are of another number or width.

    Example:
        >>> unpack(pack(torch.tensor([3, 1], dtype=torch.uint8), bits=2), 2, 2).tolist()
        [3, 1]
    """
    _check_bits(bits)
    codes = torch.empty(count, dtype=torch.uint8, device=packed.device)
    _packed(packed, codes, bits)
    _form(codes).unpack(packed, bits, codes)
    return codes


class _Form(Protocol):
    """What a module that does the work offers; tensors are of one dimension and contiguous."""

    @staticmethod
    def encoding(flat: torch.Tensor, encoder: Encoder, packed: torch.Tensor) -> Loop: ...

    @staticmethod
    def multiply(
        flat: torch.Tensor, packed: torch.Tensor, levels: tuple[float, ...], out: torch.Tensor
    ) -> None: ...

    @staticmethod
    def pack(codes: torch.Tensor, bits: int, packed: torch.Tensor) -> None: ...

    @staticmethod
    def unpack(packed: torch.Tensor, bits: int, codes: torch.Tensor) -> None: ...


def _form(flat: torch.Tensor) -> _Form:
    if codes_native.takes(flat):
        return cast("_Form", codes_native)
    if flat.device.type == "cuda" and _has_triton():
        from shoestring.kernels import codes_triton

        return cast("_Form", codes_triton)
    return cast("_Form", codes_eager)


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def _check_bits(bits: int) -> None:
    if not 1 <= bits <= 8:
        raise InputError(f"bits={bits} are no width of a code.", hint="take 1 to 8.")


def _blocks(count: int) -> int:
    return -(-count // BLOCK)


def _chunks(flat: torch.Tensor) -> Iterator[tuple[int, int]]:
    """Yield from where to where it is worked on at a time.

    The last chunk takes the rest, too: of a single element torch may round otherwise.
    """
    count, size = flat.numel(), CHUNK
    threads = torch.get_num_threads()
    if flat.device.type != "cpu":
        size = count
    elif threads > 1:
        size = max(CHUNK * threads, codes_native.PARALLEL)
    full = count // size if size else 0
    for begin in range(0, size * full - size, size):
        yield begin, begin + size
    if count:
        yield max(size * (full - 1), 0), count


def _ordered(x: torch.Tensor, order: Sequence[int] | None) -> torch.Tensor:
    """Return a view whose rows are in the order of the codes."""
    if order is None:
        return x
    if sorted(order) != list(range(x.dim())):
        raise InputError(
            f"order={tuple(order)} does not name each of {x.dim()} dimensions once.",
            hint="take what order_of says of the tensor.",
        )
    return x.permute(tuple(order))


def _flat(x: torch.Tensor, order: Sequence[int] | None) -> torch.Tensor:
    if x.dtype not in _FLOATS:
        raise InputError(
            f"elements of {x.dtype} have no codes.",
            hint="take float32, bfloat16, float16 or float64.",
        )
    return _ordered(x.detach(), order).contiguous().view(-1)


def _like(
    x: torch.Tensor, order: Sequence[int] | None, out: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return where a result goes, in x's shape and as it lies in memory."""
    if out is None:
        ordered = _ordered(x, order)
        made = torch.empty(ordered.shape, dtype=x.dtype, device=x.device)
        if order is None:
            return made, made.view(-1)
        back = sorted(range(x.dim()), key=tuple(order).__getitem__)
        return made.permute(back), made.view(-1)
    ordered = _ordered(out.detach(), order)
    fits = out.shape == x.shape and out.dtype == x.dtype and out.device == x.device
    if not fits or not ordered.is_contiguous():
        raise InputError(
            "out is not like the input, or not dense in its order.",
            hint="give the order of out, or leave out.",
        )
    return out, ordered.view(-1)


def _packed(given: torch.Tensor | None, flat: torch.Tensor, bits: int) -> torch.Tensor:
    """Return packed codes that were given, checked, or a place for them."""
    size = packed_size(flat.numel(), bits)
    if given is None:
        return torch.empty(size, dtype=torch.uint8, device=flat.device)
    fits = given.dtype is torch.uint8 and given.device == flat.device and given.is_contiguous()
    if not fits or given.numel() != size:
        raise InputError(
            f"packed codes are not {size} bytes in a row beside {flat.numel()} elements.",
            hint="take what encode or pack returned for as many elements and bits.",
        )
    return given


def _written(out: torch.Tensor | None) -> None:
    """Let autograd notice a change that it did not see."""
    if out is not None and not out.is_inference():
        increment_version(out)
