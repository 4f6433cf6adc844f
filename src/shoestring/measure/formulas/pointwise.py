"""Pointwise operators: scalar operations for each element of the output.

An operation is one of the defining formula: a sum, a product, a comparison, a choice, and any
function of one number (exp, erf, sqrt, a power, sigmoid, tanh) are 1 each. ``silu(x) = x
sigmoid(x)`` is 2. A factor of 1 (``alpha``, ``value``) is no product. An operator that torch
tags as pointwise and that is not named here is 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import torch

from shoestring.measure.formulas.cost import (
    FLOATS,
    FREE,
    Arguments,
    Cost,
    Formula,
    Options,
    optional,
)

Weight: TypeAlias = int | Callable[[Arguments, Options], int]
"""Operations for each element: fixed, or dependent on the arguments."""


def per_output(weight: Weight) -> Formula:
    """Return the formula of so many operations for each element of the (first) output.

    It counts where the output or an operand is floating: a comparison's output is boolean.

    Args:
        weight: operations for each element.
    """
    depends = None if isinstance(weight, int) else weight
    fixed = weight if isinstance(weight, int) else 0

    def formula(args: Arguments, kwargs: Options, out: Any) -> Cost:
        if not isinstance(out, torch.Tensor):
            if not isinstance(out, (tuple, list)) or not out:
                return FREE
            out = out[0]
        if out.dtype not in FLOATS and not _floating(args):
            return FREE
        each = fixed if depends is None else depends(args, kwargs)
        return Cost(0, 0, each * out.numel())

    return formula


def _floating(args: Arguments) -> bool:
    """Return whether an operand is floating or complex."""
    return any(isinstance(a, torch.Tensor) and a.dtype in FLOATS for a in args)


def per_input(weight: Weight, index: int = 0) -> Formula:
    """Return the formula of so many operations for each element of an input.

    Args:
        weight: operations for each element.
        index: which input; the first.
    """

    def formula(args: Arguments, kwargs: Options, out: Any) -> Cost:
        tensor = args[index]
        if not isinstance(tensor, torch.Tensor):
            return FREE
        if tensor.dtype not in FLOATS:
            result = out[0] if isinstance(out, (tuple, list)) else out
            if not isinstance(result, torch.Tensor) or result.dtype not in FLOATS:
                return FREE
        each = weight if isinstance(weight, int) else weight(args, kwargs)
        return Cost(0, 0, each * tensor.numel())

    return formula


def per_list(weight: Weight) -> Formula:
    """Return the formula of a ``_foreach_`` operator: over all tensors of its first list.

    Args:
        weight: operations for each element.
    """

    def formula(args: Arguments, kwargs: Options, out: Any) -> Cost:
        each = weight if isinstance(weight, int) else weight(args, kwargs)
        first = args[0] if isinstance(args[0], (tuple, list)) else out
        return Cost(0, 0, each * sum(t.numel() for t in first if t.dtype in FLOATS))

    return formula


def _sum(args: Arguments, kwargs: Options) -> int:
    """``self + alpha * other``; the third argument of the overload with a number is alpha."""
    alpha = kwargs.get("alpha")
    return 1 if (optional(args, 2, 1) if alpha is None else alpha) == 1 else 2


def _two_factors(args: Arguments, kwargs: Options) -> int:
    """``self + value * a * b`` or ``a / b``; foreach gives the value by position."""
    value = kwargs.get("value")
    if value is None:
        value = optional(args, 3, 1)
    if isinstance(value, (tuple, list)):
        return 2 if all(v == 1 for v in value) else 3
    return 2 if not isinstance(value, torch.Tensor) and value == 1 else 3


def _quotient(args: Arguments, kwargs: Options) -> int:
    return 1 if kwargs.get("rounding_mode") is None else 2


def _clamp(args: Arguments, kwargs: Options) -> int:
    return int(optional(args, 1) is not None) + int(optional(args, 2) is not None)


def _outer(args: Arguments, kwargs: Options) -> int:
    """``beta * self + alpha * vec1 vec2'``: a product and a sum, and factors that are not 1."""
    beta, alpha = kwargs.get("beta", 1), kwargs.get("alpha", 1)
    return 1 + int(beta != 0) + int(beta not in (0, 1)) + int(alpha != 1)


def _gelu(exact: int, tanh: int) -> Callable[[Arguments, Options], int]:
    def weight(args: Arguments, kwargs: Options) -> int:
        return tanh if kwargs.get("approximate", "none") == "tanh" else exact

    return weight


POINTWISE: Final[dict[str, Weight]] = {
    # arithmetic
    **dict.fromkeys(("add", "sub", "rsub"), _sum),
    **dict.fromkeys(("addcmul", "addcdiv"), _two_factors),
    "addr": _outer,
    "div": _quotient,
    "floor_divide": 2,
    "lerp": 3,  # a + w (b - a)
    "clamp": _clamp,
    "_add_relu": 2,
    "xlogy": 2,
    "special_xlog1py": 2,
    "hypot": 4,  # two squares, a sum, a root
    "logaddexp": 5,  # the larger, the difference, exp, log1p, a sum
    "logaddexp2": 5,
    "ldexp": 2,
    "linalg_cross": 3,
    "polar": 2,
    "_masked_scale": 2,
    "_conj_physical": 1,
    "conj_physical": 1,
    # activations
    "gelu": _gelu(5, 9),  # x/2 (1 + erf(x c)); x/2 (1 + tanh(c (x + k x^3)))
    "silu": 2,  # x sigmoid(x)
    "mish": 4,  # x tanh(log1p(exp(x)))
    "softplus": 4,  # log1p(exp(b x)) / b
    "elu": 3,  # x > 0, a expm1(x)
    "celu": 4,
    "leaky_relu": 2,
    "_prelu_kernel": 2,
    "hardtanh": 2,
    "hardswish": 5,  # x clamp(x + 3, 0, 6) / 6
    "hardsigmoid": 4,
    "hardshrink": 2,
    "softshrink": 3,
    "glu": 2,  # a sigmoid(b), outputs are half of the inputs
    "log_sigmoid_forward": 6,  # min(x, 0) - log1p(exp(-|x|))
    "rrelu_with_noise": 2,
    "rrelu_with_noise_functional": 2,
    "native_dropout": 2,  # the mask, and 1 / (1 - p)
    "_fused_dropout": 2,
    # their gradients, from the gradient g of the output
    "sigmoid_backward": 3,  # g y (1 - y)
    "tanh_backward": 3,  # g (1 - y^2)
    "gelu_backward": _gelu(11, 18),  # g (cdf(x) + x pdf(x)); the derivative of the tanh form
    "silu_backward": 6,  # g s (1 + x (1 - s)), s = sigmoid(x)
    "mish_backward": 10,
    "softplus_backward": 5,
    "elu_backward": 3,
    "leaky_relu_backward": 2,
    "_prelu_kernel_backward": 3,
    "hardtanh_backward": 3,
    "hardswish_backward": 5,
    "hardsigmoid_backward": 3,
    "hardshrink_backward": 2,
    "softshrink_backward": 2,
    "threshold_backward": 1,
    "glu_backward": 4,  # both halves: s, g s, and g a s (1 - s), over the doubled size
    "glu_jvp": 6,
    "glu_backward_jvp": 10,
    "log_sigmoid_backward": 4,
    "rrelu_with_noise_backward": 2,
    "native_dropout_backward": 2,
    "logit_backward": 3,
    "_standard_gamma_grad": 1,
    "_dirichlet_grad": 1,
    # numbers of few bits: divide, round, shift, two bounds; and back
    "quantize_per_tensor": 5,
    "quantize_per_channel": 5,
    "quantize_per_tensor_dynamic": 7,  # and the least and the largest
    "dequantize": 2,
    "fake_quantize_per_tensor_affine_cachemask": 7,
    "fake_quantize_per_channel_affine_cachemask": 7,
    "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams": 7,
    "_fake_quantize_learnable_per_tensor_affine": 7,
    "_fake_quantize_learnable_per_channel_affine": 7,
    "_fused_moving_avg_obs_fq_helper": 9,
    "_fused_moving_avg_obs_fq_helper_functional": 9,
    # what torch does not tag as pointwise though it is
    **dict.fromkeys(
        (
            "abs", "copysign", "eq", "ne", "ge", "gt", "le", "lt", "heaviside", "gcd", "lcm",
            "masked_fill", "threshold", "where", "digamma", "isfinite", "_standard_gamma",
        ),
        1,
    ),
}  # fmt: skip
"""Operations for each element of the output, by the operator's name without a namespace."""

FOREACH: Final[dict[str, Weight]] = {
    "_foreach_copy": 0,
    "_foreach_zero": 0,
    "_foreach_clone": 0,
    "_foreach_norm": 2,
    "_foreach_powsum": 2,
    "_foreach_max": 1,
    "_amp_foreach_non_finite_check_and_unscale": 2,
}
"""Operators on lists that have no pointwise counterpart; the others count as that one does."""


def bitsandbytes() -> dict[str, Formula]:
    """Return the formulas of quantisation in blocks, as bitsandbytes does it."""
    scaled = per_output(1)  # a look-up in the code book, times the block's scale
    packed = per_input(3)  # the largest absolute value, the quotient, the nearest code
    return {
        "bitsandbytes::dequantize_4bit": scaled,
        "bitsandbytes::dequantize_blockwise": scaled,
        "bitsandbytes::int8_vectorwise_dequant": scaled,
        "bitsandbytes::int8_mm_dequant": per_output(2),
        "bitsandbytes::quantize_4bit": packed,
        "bitsandbytes::quantize_blockwise": packed,
        "bitsandbytes::int8_vectorwise_quant": packed,
        "bitsandbytes::int8_double_quant": per_input(6),
    }
