"""Convolutions of any rank, stride, dilation and number of groups, transposed too.

A weight is [Cout, Cin / groups, *kernel], or [Cin, Cout / groups, *kernel] transposed: its sizes
after the first are the multiply-adds of one output, or of one input of a transposed convolution.
Taps that fall on padding count. Each wanted gradient is as many as the forward, whatever the
groups: the gradient of the input pairs every output with the same taps, and so does the
gradient of the weight.
"""

from __future__ import annotations

import math
from typing import Any, Final

import torch

from shoestring.measure.formulas.cost import (
    Arguments,
    Cost,
    Formula,
    Options,
    contraction,
    elements,
    given,
)


def _taps(image: torch.Tensor, weight: torch.Tensor) -> int:
    """Positions times taps: ``image`` counts outputs, or inputs of a transposed convolution."""
    return int(image.numel()) * math.prod(weight.shape[1:])


def _convolution(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``(input, weight, bias, stride, padding, dilation, transposed, output_padding, groups)``."""
    inputs, weight = args[0], args[1]
    macs = _taps(inputs if args[6] else out, weight)
    return contraction(macs, inputs, elements(out) if args[2] is not None else 0)


def _named(bias: int | None, *, transposed: bool = False, after: int = 0) -> Formula:
    """Return the formula of ``(input, weight, ...)`` with the bias at a place, if it has one.

    ``after`` is what the kernel does to each output besides, such as a relu.
    """

    def formula(args: Arguments, kwargs: Options, out: Any) -> Cost:
        inputs = args[0]
        each = after + (1 if bias is not None and given(args, bias) else 0)
        macs = _taps(inputs if transposed else out, args[1])
        return contraction(macs, inputs, each * elements(out) if each else 0)

    return formula


def _backward(weight: int, transposed: int | bool, mask: int) -> Formula:
    """Return the formula of ``(grad_output, input, ..., output_mask)``.

    Args:
        weight: place of the weight.
        transposed: place of the flag, or the flag itself.
        mask: place of the mask of wanted gradients: input, weight, bias.
    """

    def formula(args: Arguments, kwargs: Options, out: Any) -> Cost:
        grad, wanted = args[0], args[mask]
        flag = transposed if isinstance(transposed, bool) else args[transposed]
        macs = _taps(args[1] if flag else grad, args[weight]) * (int(wanted[0]) + int(wanted[1]))
        return contraction(macs, grad, elements(grad) if len(wanted) > 2 and wanted[2] else 0)

    return formula


def _mps_backward(*, transposed: bool) -> Formula:
    """``(input, grad_output, weight, ..., output_mask)``."""
    plain = _backward(2, transposed, 3)

    def formula(args: Arguments, kwargs: Options, out: Any) -> Cost | None:
        return plain((args[1], args[0], args[2], args[-1]), kwargs, out)

    return formula


def _time_first(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``conv_tbc(input [T, B, Cin], weight [kernel, Cin, Cout], bias [Cout])``."""
    weight = args[1]
    return contraction(out.numel() * math.prod(weight.shape[:2]), args[0], elements(out))


def _time_first_backward(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``conv_tbc_backward(grad_output, input, weight, bias, pad)``: all three gradients."""
    grad = args[0]
    return contraction(2 * grad.numel() * math.prod(args[2].shape[:2]), grad, elements(grad))


CONVOLUTIONS: Final[dict[str, Formula]] = {
    **dict.fromkeys(
        ("aten::convolution", "aten::_convolution", "aten::convolution_overrideable"), _convolution
    ),
    "aten::convolution_backward": _backward(2, 7, 10),
    "aten::convolution_backward_overrideable": _backward(2, 6, 9),
    "aten::_slow_conv2d_backward.output_mask": _backward(2, False, 6),
    "aten::mps_convolution_backward": _mps_backward(transposed=False),
    "aten::mps_convolution_transpose_backward": _mps_backward(transposed=True),
    **dict.fromkeys(
        (
            "aten::conv1d",
            "aten::conv2d",
            "aten::conv3d",
            "aten::_convolution_mode",
            "aten::mkldnn_convolution",
            "aten::miopen_convolution",
            "aten::miopen_depthwise_convolution",
            "aten::_nnpack_spatial_convolution",
            "aten::_mps_convolution",
        ),
        _named(2),
    ),
    **dict.fromkeys(
        (
            "aten::_slow_conv2d_forward",
            "aten::slow_conv3d_forward",
            "aten::slow_conv3d",
            "aten::thnn_conv2d",
            "aten::slow_conv_dilated2d",
            "aten::slow_conv_dilated3d",
            "aten::_conv_depthwise2d",
            "aten::conv_depthwise3d",
        ),
        _named(3),
    ),
    **dict.fromkeys(
        ("aten::conv_transpose1d", "aten::conv_transpose2d", "aten::conv_transpose3d"),
        _named(2, transposed=True),
    ),
    "aten::slow_conv_transpose2d": _named(3, transposed=True),
    "aten::slow_conv_transpose3d": _named(3, transposed=True),
    "aten::miopen_convolution_transpose": _named(2, transposed=True),
    "aten::_mps_convolution_transpose": _named(None, transposed=True),
    "aten::cudnn_convolution_transpose": _named(None, transposed=True),
    "aten::cudnn_convolution": _named(None),
    "aten::cudnn_convolution_relu": _named(2, after=1),
    "aten::miopen_convolution_relu": _named(2, after=1),
    "aten::cudnn_convolution_add_relu": _named(4, after=2),
    "aten::miopen_convolution_add_relu": _named(4, after=2),
    "aten::conv_tbc": _time_first,
    "aten::conv_tbc_backward": _time_first_backward,
}
"""Formulas of convolutions, by the operator's name without its overload."""
