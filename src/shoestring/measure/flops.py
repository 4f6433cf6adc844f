"""Floating point operations of one torch operator, from the shapes of its arguments.

Only contractions are counted (matrix products, convolutions, attention, recurrent layers), two
operations a multiply-add; everything else is limited by memory and counts zero. Shapes are all
that is read, so fake and meta tensors do as well as real ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias, cast

import torch

Arguments: TypeAlias = Sequence[object]
Options: TypeAlias = Mapping[str, object]
Formula: TypeAlias = Callable[[Arguments, Options, object], int]


def op_flops(
    func: torch._ops.OpOverload, args: Sequence[object], kwargs: Mapping[str, object], out: object
) -> int:
    r"""Count the contraction FLOPs of one operator call.

    Attention counts every pair of a query and a key, also where a causal mask hides half of
    them; convolutions count the taps that fall on padding.

    Args:
        func: the operator, as a dispatch mode receives it.
        args: its positional arguments; only shapes are read.
        kwargs: its keyword arguments.
        out: what it returned; only a convolution's output is looked at.

    Returns:
        Floating point operations, 2 per multiply-add; 0 for an operator that contracts nothing.

    Example:
        >>> a, b = torch.ones(2, 3), torch.ones(3, 4)
        >>> op_flops(torch.ops.aten.mm.default, (a, b), {}, a @ b)
        48
    """
    formula = _FORMULAS.get(func.name())
    return 0 if formula is None else formula(args, kwargs, out)


def contracts(func: torch._ops.OpOverload) -> bool:
    """Return whether an operator is one whose FLOPs are counted.

    Args:
        func: the operator.

    Returns:
        True for contractions.
    """
    return func.name() in _FORMULAS


def _argument(args: Arguments, kwargs: Options, index: int, name: str) -> object:
    return args[index] if index < len(args) else kwargs[name]


def _tensor(args: Arguments, kwargs: Options, index: int, name: str) -> torch.Tensor:
    """Return one tensor argument, wherever it was passed."""
    return cast(torch.Tensor, args[index] if index < len(args) else kwargs[name])


def _shape(args: Arguments, index: int) -> torch.Size:
    """Return the sizes of one positional tensor."""
    return cast(torch.Tensor, args[index]).shape


def _product(first: int) -> Formula:
    """Return the formula of a matrix product whose factors start at argument ``first``.

    ``[..., M, K] x [..., K, N]``, batched over leading sizes: 2 * batch * M * K * N.
    """

    def formula(args: Arguments, kwargs: Options, out: object) -> int:
        left = _tensor(args, kwargs, first, "mat1" if first else "self")
        return 2 * left.numel() * _tensor(args, kwargs, first + 1, "mat2").shape[-1]

    return formula


def _batched(args: Arguments, kwargs: Options, out: object) -> int:
    """``baddbmm`` and ``addbmm``: self + batch1 [B, M, K] x batch2 [B, K, N]."""
    left, right = (_tensor(args, kwargs, i, f"batch{i}") for i in (1, 2))
    return 2 * left.numel() * right.shape[-1]


def _matrix_vector(first: int) -> Formula:
    """Return the formula of a [M, K] matrix at argument ``first`` times a vector."""

    def formula(args: Arguments, kwargs: Options, out: object) -> int:
        return 2 * _tensor(args, kwargs, first, "mat" if first else "self").numel()

    return formula


def _rows_by_weight(args: Arguments, kwargs: Options, out: object) -> int:
    """``[..., K] x weight`` with N in the weight's first size (linear, int8 weights)."""
    inputs = _tensor(args, kwargs, 0, "input")
    return 2 * inputs.numel() * _tensor(args, kwargs, 1, "weight").shape[0]


def _output_by_inner(args: Arguments, kwargs: Options, out: object) -> int:
    """Packed 4-bit weights, whose shape does not show N: outputs times inner size."""
    return 2 * cast(torch.Tensor, out).numel() * _shape(args, 0)[-1]


def _linear_backward(args: Arguments, kwargs: Options, out: object) -> int:
    """``(self [..., K], grad_output [..., N], weight, mask)``: a product per wanted gradient."""
    mask = cast(Sequence[bool], _argument(args, kwargs, 3, "output_mask"))
    return 2 * math.prod(_shape(args, 0)) * _shape(args, 1)[-1] * (int(mask[0]) + int(mask[1]))


def _grouped_product(args: Arguments, kwargs: Options, out: object) -> int:
    """``_grouped_mm``: groups share M, K or N of the 2-d operand, so that it is read once."""
    left, right = _shape(args, 0), _shape(args, 1)
    groups = left[0] if len(left) == 3 and len(right) == 3 else 1
    return 2 * groups * left[-2] * left[-1] * right[-1]


def _grouped_product_backward(args: Arguments, kwargs: Options, out: object) -> int:
    """The fallback's backward: a product each for the input and the weights."""
    return 2 * _grouped_product(args, kwargs, out)


def _foreach_product(args: Arguments, kwargs: Options, out: object) -> int:
    lefts = cast(Sequence[torch.Tensor], args[0])
    rights = cast(Sequence[torch.Tensor], args[1])
    return sum(2 * a.numel() * b.shape[-1] for a, b in zip(lefts, rights, strict=True))


def _taps(image: int, weight: Sequence[int]) -> int:
    """2 * positions * taps: ``image`` counts outputs, or inputs of a transposed convolution.

    The weight is [Cout, Cin/groups, *kernel], or [Cin, Cout/groups, *kernel] transposed, so its
    sizes after the first are the multiply-adds of one position either way.
    """
    return 2 * image * math.prod(weight[1:])


def _convolution(args: Arguments, kwargs: Options, out: object) -> int:
    """``(input, weight, bias, stride, padding, dilation, transposed, output_padding, groups)``."""
    transposed = bool(_argument(args, kwargs, 6, "transposed"))
    image = args[0] if transposed else out
    return _taps(cast(torch.Tensor, image).numel(), _shape(args, 1))


def _convolution_backward(args: Arguments, kwargs: Options, out: object) -> int:
    """``(grad_output, input, weight, bias_sizes, ..., output_mask)``: forward per gradient."""
    transposed = bool(_argument(args, kwargs, 7, "transposed"))
    mask = cast(Sequence[bool], _argument(args, kwargs, 10, "output_mask"))
    image = math.prod(_shape(args, 1 if transposed else 0))
    return _taps(image, _shape(args, 2)) * (int(mask[0]) + int(mask[1]))


def _convolution_tbc(args: Arguments, kwargs: Options, out: object) -> int:
    """``conv_tbc``: weight [kernel, Cin, Cout], output [T, B, Cout]."""
    kernel, inner, _ = _shape(args, 1)
    return 2 * cast(torch.Tensor, out).numel() * kernel * inner


def _convolution_tbc_backward(args: Arguments, kwargs: Options, out: object) -> int:
    kernel, inner, _ = _shape(args, 2)
    return 4 * math.prod(_shape(args, 0)) * kernel * inner


def _attention(
    query: Sequence[int], key: Sequence[int], value: Sequence[int], backward: bool
) -> int:
    """Attention over query [B, H, Tq, Dk], key [B, Hkv, Tk, Dk], value [B, Hkv, Tk, Dv].

    Forward: scores (Dk) and their product with the values (Dv). Backward: the scores again and
    the gradients of query and key (3 Dk), of the scores and the values (2 Dv). Grouped heads
    share keys, not products, so the query's heads count.
    """
    inner = 3 * query[-1] + 2 * value[-1] if backward else query[-1] + value[-1]
    return 2 * math.prod(query[:-1]) * key[-2] * inner


def _heads_first(first: int, backward: bool) -> Formula:
    """Return the formula for [B, H, T, D] arguments starting at ``first``."""

    def formula(args: Arguments, kwargs: Options, out: object) -> int:
        names = ("query", "key", "value")
        query, key, value = (_tensor(args, kwargs, first + i, n).shape for i, n in enumerate(names))
        return _attention(query, key, value, backward)

    return formula


def _time_first(first: int, backward: bool, sequences: tuple[int, str], longest: int) -> Formula:
    """Return the formula for [B, T, H, D] arguments, or packed ones [total, H, D].

    ``sequences`` is the argument with the packed sequences' bounds and ``longest`` that of the
    longest query, followed by that of the longest key. Lengths of packed sequences are data, so
    every sequence counts as the longest: an upper bound.
    """

    def formula(args: Arguments, kwargs: Options, out: object) -> int:
        query, key, value = (_shape(args, first + i) for i in range(3))
        bounds = args[sequences[0]] if sequences[0] < len(args) else kwargs.get(sequences[1])
        if isinstance(bounds, torch.Tensor):
            rows, tq = bounds.numel() - 1, int(cast(int, args[longest]))
            tk = int(cast(int, args[longest + 1]))
        else:
            rows, tq, tk = math.prod(query[:-3]), query[-3], key[-3]
        return _attention(
            [rows, query[-2], tq, query[-1]], [tk, key[-1]], [tk, value[-1]], backward
        )

    return formula


def _mkldnn_rnn(args: Arguments, kwargs: Options, out: object) -> int:
    """``(input [T, B, I], weight_ih [G*H, I], weight_hh [G*H, H], ...)``: one layer, one way."""
    rows = math.prod(_shape(args, 0)[:-1])
    return 2 * rows * (math.prod(_shape(args, 1)) + math.prod(_shape(args, 2)))


def _mkldnn_rnn_backward(args: Arguments, kwargs: Options, out: object) -> int:
    """Two products, for the input's and the weight's gradient, for each of the forward."""
    return 2 * _mkldnn_rnn(args, kwargs, out)


def _cudnn_rnn(args: Arguments, kwargs: Options, out: object) -> int:
    """``(input [..., I], weights, ...)``: every matrix meets every row once; biases are 1-d."""
    rows = math.prod(_shape(args, 0)[:-1])
    weights = cast(Sequence[torch.Tensor], args[1])
    return 2 * rows * sum(w.numel() for w in weights if w.dim() == 2)


def _cudnn_rnn_backward(args: Arguments, kwargs: Options, out: object) -> int:
    mask = cast(Sequence[bool], args[-1] if len(args) == 22 else kwargs["output_mask"])
    return _cudnn_rnn(args, kwargs, out) * (1 + int(mask[3]))


def _trilinear(args: Arguments, kwargs: Options, out: object) -> int:
    """``_trilinear(i1, i2, i3, expand1, expand2, expand3, sumdim)``: i1 with i2, then i3.

    The dimensions that i3 lacks are summed in the first product, the others in the second.
    """
    tensors = [_shape(args, i) for i in range(3)]
    expands = [set(cast(Sequence[int], args[3 + i])) for i in range(3)]
    summed = set(cast(Sequence[int], args[6]))
    rank = len(tensors[0]) + len(expands[0])
    sizes = []
    for expand, shape in zip(expands, tensors, strict=True):
        left = iter(shape)
        sizes.append([1 if d in expand else next(left) for d in range(rank)])
    pair = [max(a, b) for a, b in zip(sizes[0], sizes[1], strict=True)]
    rest = [1 if d in summed and d in expands[2] else n for d, n in enumerate(pair)]
    whole = [max(a, b) for a, b in zip(rest, sizes[2], strict=True)]
    return 2 * (math.prod(pair) + math.prod(whole))


def _bilinear(args: Arguments, kwargs: Options, out: object) -> int:
    """``(input1 [..., I1], input2 [..., I2], weight [O, I1, I2])``, as ``_trilinear`` does it."""
    rows = math.prod(_shape(args, 0)[:-1])
    outputs, first, second = _shape(args, 2)
    return 2 * rows * outputs * second * (first + 1)


def _table() -> dict[str, Formula]:
    """Return the formula of every operator that contracts, by the operator's full name."""
    rows: dict[str, Formula] = {
        **dict.fromkeys(("mm", "bmm", "matmul", "_int_mm", "_scaled_mm"), _product(0)),
        **dict.fromkeys(("addmm", "addmm_", "_addmm_activation"), _product(1)),
        **dict.fromkeys(("baddbmm", "baddbmm_", "addbmm", "addbmm_"), _batched),
        **dict.fromkeys(("mv", "dot", "vdot"), _matrix_vector(0)),
        **dict.fromkeys(("addmv", "addmv_"), _matrix_vector(1)),
        **dict.fromkeys(("linear", "mkldnn_linear", "_weight_int8pack_mm"), _rows_by_weight),
        **dict.fromkeys(("_weight_int4pack_mm", "_weight_int4pack_mm_for_cpu"), _output_by_inner),
        "linear_backward": _linear_backward,
        "_grouped_mm": _grouped_product,
        "_scaled_grouped_mm": _grouped_product,
        "_foreach_mm": _foreach_product,
        "convolution": _convolution,
        "_convolution": _convolution,
        "convolution_backward": _convolution_backward,
        "conv_tbc": _convolution_tbc,
        "conv_tbc_backward": _convolution_tbc_backward,
        "mkldnn_rnn_layer": _mkldnn_rnn,
        "mkldnn_rnn_layer_backward": _mkldnn_rnn_backward,
        "_cudnn_rnn": _cudnn_rnn,
        "_cudnn_rnn_backward": _cudnn_rnn_backward,
        "_trilinear": _trilinear,
        "bilinear": _bilinear,
        **_attention_rows(),
    }
    named: dict[str, Formula] = {
        # The product of experts that transformers defines where torch's own does not serve.
        "transformers::grouped_mm_fallback": _grouped_product,
        "transformers::grouped_mm_fallback_backward": _grouped_product_backward,
    }
    for name, formula in rows.items():
        packet = getattr(torch.ops.aten, name, None)  # not every release has every operator
        for overload in packet.overloads() if packet is not None else ():
            named[getattr(packet, overload).name()] = formula
    return named


def _attention_rows() -> dict[str, Formula]:
    rows: dict[str, Formula] = {
        "_scaled_dot_product_attention_math": _heads_first(0, backward=False),
        "scaled_dot_product_attention": _heads_first(0, backward=False),
        "_flash_attention_forward": _time_first(0, False, (3, "cum_seq_q"), 5),
        "_flash_attention_backward": _time_first(1, True, (6, "cum_seq_q"), 8),
        "_efficient_attention_forward": _time_first(0, False, (4, "cu_seqlens_q"), 6),
        "_efficient_attention_backward": _time_first(1, True, (6, "cu_seqlens_q"), 8),
    }
    fused = (
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_cudnn_attention",
        "_scaled_dot_product_fused_attention_overrideable",
    )
    for name in fused:
        rows[name] = _heads_first(0, backward=False)
        rows[f"{name}_backward"] = _heads_first(1, backward=True)
    rows["_cudnn_attention_forward"] = _heads_first(0, backward=False)
    rows["_cudnn_attention_backward"] = _heads_first(1, backward=True)
    return rows


_FORMULAS: Final = _table()
