"""Attention: fused kernels of every device, and the fused layers built on them.

Forward: the scores (Tq Tk Dk multiply-adds a head) and their product with the values
(Tq Tk Dv). Backward of a fused kernel: the scores once more, the gradients of query and key
(3 Dk together), of the scores and of the values (2 Dv): 2.5 times the forward where Dk is Dv.
Grouped heads share keys, not products, so the query's heads count. A mask given as a tensor
hides nothing: every pair counts.

With ``causal="full"`` every pair of a query and a key counts, also where the kernel is told that
it is causal; with "half" only the pairs a causal kernel lets through, which is what it computes
at least. Scalar operations, for each score: the scale (1), a mask (1), softmax (5), dropout (2);
backward the scale, the mask, dropout, the softmax from its saved sum (2) and its gradient (3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from shoestring.measure.formulas._torch import Operator, full_name, is_overload, positions
from shoestring.measure.formulas.cost import (
    FLOATS,
    Arguments,
    Cost,
    Formula,
    Options,
    contraction,
    elements,
    given,
    optional,
)

Causal: TypeAlias = Literal["full", "half"]
"""Which pairs of a causal kernel count."""

SOFTMAX: Final = 5
"""The largest, the difference to it, exp, the sum, the quotient: operations for each score."""


class _Kernel(NamedTuple):
    """Where an attention kernel finds what; places are those of positional arguments."""

    query: int
    backward: bool
    time_first: bool  # [B, T, H, D], or packed [total, H, D], rather than [B, H, T, D]
    bounds: int | None = None  # the bounds of packed sequences
    longest: int | None = None  # the longest query, followed by the longest key
    mask: int | str | None = None
    dropout: int | None = None
    causal: int | None = None
    mask_type: int | None = None


def visible(queries: int, keys: int, *, bottom_right: bool = False) -> int:
    """Return how many pairs of a query and a key a causal mask lets through.

    Args:
        queries: number of queries.
        keys: number of keys.
        bottom_right: the last query sees the last key; otherwise the first sees the first.

    Example:
        >>> visible(3, 3), visible(2, 3), visible(2, 3, bottom_right=True)
        (6, 3, 5)
    """
    both = min(queries, keys)
    triangle = both * (both + 1) // 2
    if bottom_right:
        return triangle + queries * max(0, keys - queries)
    return triangle + keys * max(0, queries - keys)


def attention_formula(func: Operator, causal: Causal) -> Formula | None:
    """Return the formula of an attention kernel, or None where it is no such kernel.

    Args:
        func: the operator.
        causal: which pairs count where the kernel is causal.
    """
    name = full_name(func).partition(".")[0]
    if name in _FLEX:
        return _formula(_FLEX[name], half=False)
    style = _STYLES.get(name.removesuffix("_backward"))
    if style is None or not is_overload(func):
        return None
    where = positions(func)
    mask: int | str | None = next((where[n] for n in _MASKS if n in where), None)
    if mask is None and "for_cpu" in name:
        mask = "attn_mask"
    kernel = _Kernel(
        query=where["query" if "query" in where else "q"],
        backward=name.endswith("_backward"),
        time_first=style,
        bounds=next((where[n] for n in ("cum_seq_q", "cu_seqlens_q") if n in where), None),
        longest=next((where[n] for n in ("max_q", "max_seqlen_q") if n in where), None),
        mask=mask,
        dropout=where.get("dropout_p"),
        causal=where.get("is_causal"),
        mask_type=where.get("custom_mask_type"),
    )
    return _formula(kernel, half=causal == "half")


def is_attention(func: Operator) -> bool:
    """Return whether an operator is an attention kernel.

    Args:
        func: the operator.
    """
    name = full_name(func).partition(".")[0]
    return name in _FLEX or name.removesuffix("_backward") in _STYLES


_MASKS: Final = ("attn_mask", "attn_bias", "bias")

_STYLES: Final[dict[str, bool]] = {
    **dict.fromkeys(
        (
            "aten::scaled_dot_product_attention",
            "aten::_scaled_dot_product_attention_math",
            "aten::_scaled_dot_product_attention_math_for_mps",
            "aten::_scaled_dot_product_flash_attention_for_cpu",
            "aten::_scaled_dot_product_flash_attention",
            "aten::_scaled_dot_product_efficient_attention",
            "aten::_scaled_dot_product_cudnn_attention",
            "aten::_scaled_dot_product_fused_attention_overrideable",
            "aten::_cudnn_attention_forward",
            "aten::_cudnn_attention",
            "aten::_triton_scaled_dot_attention",
        ),
        False,
    ),
    **dict.fromkeys(
        (
            "aten::_flash_attention_forward",
            "aten::_flash_attention",
            "aten::_flash_attention_forward_no_dropout_inplace",
            "aten::_efficient_attention_forward",
            "aten::_efficient_attention",
        ),
        True,
    ),
}
"""Kernels, without ``_backward``; whether time comes before heads."""

_FLEX: Final = {
    "flex_attention": _Kernel(0, backward=False, time_first=False),
    "flex_attention_backward": _Kernel(0, backward=True, time_first=False),
}
"""Higher-order operators: a block mask is data, so every pair counts."""


def _formula(kernel: _Kernel, *, half: bool) -> Formula:
    """Return the formula of a kernel."""
    packed = kernel.time_first

    def formula(args: Arguments, kwargs: Options, out: Any) -> Cost:
        at = kernel.query
        first = args[at]
        query, key, inner = first.shape, args[at + 1].shape, args[at + 2].shape[-1]
        if packed:
            heads, tq, tk = _time_first(kernel, args, query, key)
        else:
            heads, tq, tk = math.prod(query[:-2]), query[-2], key[-2]
        pairs = tq * tk
        if half:
            pairs = _seen(kernel, args, tq, tk)
        scores = heads * pairs
        depth = query[-1]
        each = _per_score(kernel, args, kwargs)
        if kernel.backward:
            # The sum of grad_out * out, for each query.
            rows = 2 * heads * tq * inner if first.dtype in FLOATS else 0
            return contraction(scores * (3 * depth + 2 * inner), first, each * scores + rows)
        return contraction(scores * (depth + inner), first, each * scores)

    return formula


def _time_first(
    kernel: _Kernel, args: Arguments, query: Sequence[int], key: Sequence[int]
) -> tuple[int, int, int]:
    """Return sequences times heads, and the lengths of queries and keys.

    Lengths of packed sequences are data, so every sequence counts as the longest: an upper
    bound.
    """
    if kernel.bounds is not None and given(args, kernel.bounds):
        assert kernel.longest is not None
        tq, tk = (int(args[kernel.longest + i]) for i in range(2))
        return (args[kernel.bounds].numel() - 1) * query[-2], tq, tk
    return math.prod(query[:-3]) * query[-2], query[-3], key[-3]


def _seen(kernel: _Kernel, args: Arguments, tq: int, tk: int) -> int:
    """Return the pairs that the kernel's own causal mask lets through."""
    if kernel.causal is not None and optional(args, kernel.causal, default=False):
        # The kernels of flash attention put the mask in the other corner.
        return visible(tq, tk, bottom_right=kernel.time_first)
    if kernel.mask_type is not None and args[kernel.mask_type] in (1, 2):
        return visible(tq, tk, bottom_right=args[kernel.mask_type] == 2)
    return tq * tk


def _per_score(kernel: _Kernel, args: Arguments, kwargs: Options) -> int:
    """Return the scalar operations for each score."""
    mask = kernel.mask
    masked = kwargs.get(mask) if isinstance(mask, str) else optional(args, mask or 0)
    dropped = kernel.dropout is not None and optional(args, kernel.dropout, default=0.0) != 0
    each = 1 + int(mask is not None and masked is not None) + 2 * int(dropped)
    return each + (6 if kernel.backward else SOFTMAX)


# --- whole layers ----------------------------------------------------------------------------


def _lengths(inputs: Any) -> tuple[int, int]:
    """Return the rows of [B, T, D], which may be nested, and the sum of T^2 over sequences."""
    if inputs.is_nested:
        lengths = [int(sequence.shape[0]) for sequence in inputs.unbind()]
        return sum(lengths), sum(n * n for n in lengths)
    batch, time = inputs.shape[0], inputs.shape[1]
    return batch * time, batch * time * time


def _self_attention(inputs: Any, heads: int, *, masked: bool) -> tuple[int, int]:
    """Return multiply-adds and scalar operations of self-attention with its four products."""
    rows, square = _lengths(inputs)
    width = inputs.shape[-1] if not inputs.is_nested else inputs.size(-1)
    macs = rows * 4 * width * width + square * 2 * width
    scalars = rows * 4 * width + square * heads * (1 + int(masked) + SOFTMAX)
    return macs, scalars


def _encoder_layer(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``_transformer_encoder_layer_fwd``: what ``nn.TransformerEncoderLayer`` runs in eval.

    Self-attention, two layer norms (8 operations an element), two sums with the input, and two
    products with gelu (5) or relu (1) between them.
    """
    inputs, heads, hidden = args[0], args[2], args[14].shape[0]
    macs, scalars = _self_attention(inputs, heads, masked=given(args, 18))
    rows, width = _lengths(inputs)[0], args[14].shape[1]
    macs += rows * 2 * width * hidden
    scalars += rows * ((1 + (5 if args[7] else 1)) * hidden + (1 + 2 * 8 + 2) * width)
    return contraction(macs, inputs, scalars if inputs.dtype in FLOATS else 0)


def _multi_head(heads: int) -> Formula:
    """``(query, key, value, embed_dim, num_head, ..., mask)``: what runs in eval."""

    def formula(args: Arguments, kwargs: Options, out: Any) -> Cost:
        query, key = args[0], args[1]
        masked = given(args, heads + 5)
        if query is key or query.is_nested:
            macs, scalars = _self_attention(query, args[heads], masked=masked)
        else:
            batch, tq, width = query.shape
            tk = key.shape[1]
            macs = batch * (2 * (tq + tk) * width * width + 2 * tq * tk * width)
            scalars = batch * 2 * (tq + tk) * width
            scalars += batch * tq * tk * args[heads] * (1 + int(masked) + SOFTMAX)
        return contraction(macs, query, scalars)

    return formula


def _bias_and_scale(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``_transform_bias_rescale_qkv(qkv, qkv_bias, num_heads)``: a bias, and queries scaled."""
    return Cost(0, 0, elements(args[0]) + elements(args[0]) // 3)


LAYERS: Final[dict[str, Formula]] = {
    "aten::_transformer_encoder_layer_fwd": _encoder_layer,
    "aten::_native_multi_head_attention": _multi_head(4),
    "aten::_triton_multi_head_attention": _multi_head(4),
    "aten::_transform_bias_rescale_qkv": _bias_and_scale,
}
"""Formulas of fused layers, by the operator's name without its overload."""
