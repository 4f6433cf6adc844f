"""Matrix products: dense, batched, grouped, sparse and quantised.

``[..., M, K] x [..., K, N]`` is M K N multiply-adds. A sparse factor with Z stored numbers
against a dense one with N columns is Z N. What is added to a product (a bias, ``beta * self``)
is elementwise: an operation per scalar of the result for each factor that is not 1 and each sum.
"""

from __future__ import annotations

import math
from typing import Any, Final

import torch

from shoestring.measure.formulas._torch import stored
from shoestring.measure.formulas.cost import (
    Arguments,
    Cost,
    Formula,
    Options,
    contraction,
    elements,
    given,
    optional,
)


def _pairs(left: Any, right: Any) -> int:
    """Multiply-adds of [..., M, K] x [..., K, N], either of which may be sparse.

    Two sparse factors meet as often as their stored numbers do when these are spread evenly
    over K: their places are data.
    """
    if left.layout is torch.strided and right.layout is torch.strided:
        return int(left.numel() * right.shape[-1])
    if right.layout is torch.strided:
        return stored(left) * (int(right.shape[-1]) if right.dim() > 1 else 1)
    if left.layout is torch.strided:
        return stored(right) * int(left.shape[-2])
    return stored(left) * stored(right) // max(1, int(left.shape[-1]))


def _scaled_sum(options: Options, out: torch.Tensor) -> int:
    """Operations of ``beta * self + alpha * product`` beside the product, for each output."""
    beta, alpha = options.get("beta", 1), options.get("alpha", 1)
    return elements(out) * (int(beta != 0) + int(beta not in (0, 1)) + int(alpha != 1))


def _mm(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``(self [.., M, K], mat2 [.., K, N])``."""
    left = args[0]
    return contraction(_pairs(left, args[1]), left)


def _addmm(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``(self, mat1 [.., M, K], mat2 [.., K, N], *, beta, alpha)``."""
    left = args[1]
    return contraction(_pairs(left, args[2]), left, _scaled_sum(kwargs, out))


def _addmm_activation(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """As ``addmm``, then relu (1 operation) or the gelu by tanh (9)."""
    cost = _addmm(args, kwargs, out)
    each = 9 if kwargs.get("use_gelu", False) else 1
    return cost._replace(elementwise=cost.elementwise + each * elements(out))


def _matmul(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``matmul`` of any ranks, sizes before the last two broadcast."""
    left = args[0]
    return contraction(out.numel() * left.shape[-1], left)


def _matmul_backward(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``(grad, self, other, mask)``: a product of the same size per wanted gradient."""
    grad, left = args[0], args[1]
    return contraction(grad.numel() * left.shape[-1] * sum(map(int, args[3])), left)


def _mv(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``(self [M, K], vec [K])``, and dot products."""
    left = args[0]
    return contraction(left.numel() if left.layout is torch.strided else stored(left), left)


def _addmv(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``(self [M], mat [M, K], vec [K], *, beta, alpha)``."""
    cost = _mv(args[1:], kwargs, out)
    return cost._replace(elementwise=_scaled_sum(kwargs, out))


def _linear(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``(input [..., K], weight [N, K] or [K], bias)``."""
    inputs, weight = args[0], args[1]
    outputs = weight.shape[0] if weight.dim() > 1 else 1
    return contraction(inputs.numel() * outputs, inputs, elements(out) if given(args, 2) else 0)


def _linear_backward(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``(self [..., K], grad_output [..., N], weight, mask)``: a product per wanted gradient.

    The gradient of a bias is a sum over rows.
    """
    inputs, grad, mask = args[0], args[1], args[3]
    macs = inputs.numel() * grad.shape[-1] * (int(mask[0]) + int(mask[1]))
    return contraction(macs, inputs, elements(grad) if mask[2] else 0)


def _linear_backward_input(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``(input_size, grad_output [..., N], weight [N, K])``."""
    return contraction(args[1].numel() * args[2].shape[-1], args[1])


def _linear_backward_weights(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``(grad_output [..., N], input [..., K], weight, bias_defined)``."""
    grad = args[0]
    return contraction(
        grad.numel() * args[1].shape[-1], grad, elements(grad) if optional(args, 3, False) else 0
    )


def _scaled_mm(bias: int) -> Formula:
    """``(self [M, K], mat2 [K, N], scales...)``: the scales are one multiplication an output."""

    def formula(args: Arguments, kwargs: Options, out: Any) -> Cost:
        extra = elements(out) * (1 + int(given(args, bias)))
        return contraction(_pairs(args[0], args[1]), args[0], extra)

    return formula


def _grouped(scaled: bool) -> Formula:
    """``_grouped_mm``: groups share M, K or N of the 2-d operand, so that it is read once."""

    def formula(args: Arguments, kwargs: Options, out: Any) -> Cost:
        left, right = args[0], args[1]
        groups = left.shape[0] if left.dim() == 3 and right.dim() == 3 else 1
        macs = groups * left.shape[-2] * left.shape[-1] * right.shape[-1]
        return contraction(macs, left, elements(out) if scaled else 0)

    return formula


def _grouped_backward(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """A product each for the input and the weights: ``(grad, input, weights, ...)``."""
    left, right = args[1], args[2]
    groups = left.shape[0] if left.dim() == 3 and right.dim() == 3 else 1
    return contraction(2 * groups * left.shape[-2] * left.shape[-1] * right.shape[-1], left)


def _foreach_mm(args: Arguments, kwargs: Options, out: Any) -> Cost:
    total = [_mm(pair, kwargs, None) for pair in zip(args[0], args[1], strict=True)]
    return Cost(sum(c.flops for c in total), sum(c.macs for c in total), 0)


# --- sparse ----------------------------------------------------------------------------------


def _sampled(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``sparse_sampled_addmm(self, mat1 [M, K], mat2 [K, N])``: K per stored place of self."""
    own, left = args[0], args[1]
    beta, alpha = kwargs.get("beta", 1), kwargs.get("alpha", 1)
    each = int(beta != 0) + int(beta not in (0, 1)) + int(alpha != 1)
    return contraction(stored(own) * left.shape[-1], left, each * stored(own))


def _sparse_reduce_backward(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``(self, grad_out, weight, reduce, arg_out, output_mask)``: forward per gradient."""
    grad = args[1]
    return contraction(stored(args[0]) * grad.shape[-1] * sum(map(int, args[5])), grad)


def _half_dense(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``_sparse_semi_structured_linear(input, weight [N, K / 2])``: 2 of 4 are stored."""
    extra = elements(out) if kwargs.get("bias") is not None else 0
    return contraction(out.numel() * args[1].shape[-1], args[0], extra)


def _half_dense_columns(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``_cslt_sparse_mm(compressed_A, dense_B [K, N], bias)``: half of K is stored."""
    extra = elements(out) if given(args, 2) else 0
    return contraction(out.numel() * args[1].shape[0] // 2, args[1], extra)


def _half_dense_mm(first: int) -> Formula:
    """``(mat1 [M, K / 2], mat1_meta, mat2 [K, N])``, after ``first`` other arguments."""

    def formula(args: Arguments, kwargs: Options, out: Any) -> Cost:
        left = args[first]
        extra = _scaled_sum(kwargs, out) if first else 0
        return contraction(left.numel() * args[first + 2].shape[-1], left, extra)

    return formula


# --- quantised -------------------------------------------------------------------------------


def _int8_weight(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``_weight_int8pack_mm(self [M, K], mat2 [N, K], scales)``."""
    return contraction(args[0].numel() * args[1].shape[0], args[0], elements(out))


def _packed_weight(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """Packed weights, whose shape does not show N: outputs times inner size."""
    return contraction(out.numel() * args[0].shape[-1], args[0])


def _int8_rows(inputs: int, bias: int) -> Formula:
    """``(..., A [..., K], B [N, K], ...)`` of 8-bit integers, scaled back where out is floating."""

    def formula(args: Arguments, kwargs: Options, out: Any) -> Cost:
        left, right = args[inputs], args[inputs + 1]
        result = out[0] if isinstance(out, (tuple, list)) else out
        each = 2 + int(bias > 0 and given(args, bias))  # the scales of the row and the column
        extra = each * elements(result)
        return contraction(left.numel() * right.shape[0], left, extra)

    return formula


def _four_bit(bias: int) -> Formula:
    """``(A [..., K], B, shapeB [N, K], ...)``: each weight is multiplied by its block's scale."""

    def formula(args: Arguments, kwargs: Options, out: Any) -> Cost:
        left, shape = args[0], args[2]
        extra = math.prod(shape) + (elements(out) if bias and given(args, bias) else 0)
        return contraction(left.numel() * shape[0], left, extra)

    return formula


PRODUCTS: Final[dict[str, Formula]] = {
    **dict.fromkeys(("aten::mm", "aten::bmm", "aten::_int_mm", "aten::hspmm"), _mm),
    **dict.fromkeys(("aten::_sparse_mm", "aten::_sparse_sparse_matmul", "aten::smm"), _mm),
    "aten::_sparse_mm_reduce_impl": _mm,
    "aten::_cslt_sparse_mm": _half_dense_columns,
    **dict.fromkeys(("aten::addmm", "aten::baddbmm", "aten::addbmm"), _addmm),
    **dict.fromkeys(("aten::_sparse_addmm", "aten::sspaddmm"), _addmm),
    "aten::_addmm_activation": _addmm_activation,
    **dict.fromkeys(("aten::matmul", "aten::linalg_matmul"), _matmul),
    "aten::matmul_backward": _matmul_backward,
    **dict.fromkeys(("aten::mv", "aten::dot", "aten::vdot"), _mv),
    "aten::addmv": _addmv,
    **dict.fromkeys(("aten::linear", "aten::mkldnn_linear"), _linear),
    **dict.fromkeys(("aten::linear_backward", "aten::mkldnn_linear_backward"), _linear_backward),
    "aten::mkldnn_linear_backward_input": _linear_backward_input,
    "aten::mkldnn_linear_backward_weights": _linear_backward_weights,
    "aten::_scaled_mm": _scaled_mm(4),
    "aten::_scaled_mm_v2": _scaled_mm(8),
    "aten::_grouped_mm": _grouped(scaled=False),
    "aten::_scaled_grouped_mm": _grouped(scaled=True),
    "aten::_scaled_grouped_mm_v2": _grouped(scaled=True),
    "aten::_foreach_mm": _foreach_mm,
    "aten::sparse_sampled_addmm": _sampled,
    "aten::_sparse_mm_reduce_impl_backward": _sparse_reduce_backward,
    "aten::_sparse_semi_structured_linear": _half_dense,
    "aten::_sparse_semi_structured_mm": _half_dense_mm(0),
    "aten::_sparse_semi_structured_addmm": _half_dense_mm(1),
    "aten::_weight_int8pack_mm": _int8_weight,
    "aten::_weight_int4pack_mm": _packed_weight,
    "aten::_weight_int4pack_mm_for_cpu": _packed_weight,
    "aten::_weight_int4pack_mm_with_scales_and_zeros": _packed_weight,
    "aten::_mixed_dtypes_linear": _packed_weight,
    "aten::_dyn_quant_matmul_4bit": _packed_weight,
    "quantized::linear": _packed_weight,
    "quantized::linear_relu": _packed_weight,
    "quantized::linear_dynamic": _packed_weight,
    "quantized::linear_relu_dynamic": _packed_weight,
    "bitsandbytes::int8_linear_matmul": _int8_rows(0, 0),
    "bitsandbytes::int8_scaled_mm": _int8_rows(0, 4),
    "bitsandbytes::int8_mixed_scaled_mm": _int8_rows(1, 6),
    "bitsandbytes::gemm_4bit": _four_bit(6),
    "bitsandbytes::gemv_4bit": _four_bit(0),
    # The product of experts that transformers defines where torch's own does not serve.
    "transformers::grouped_mm_fallback": _grouped(scaled=False),
    "transformers::grouped_mm_fallback_backward": _grouped_backward,
}
"""Formulas of matrix products, by the operator's name without its overload."""
