"""Reductions, softmax, norms, running sums, sorting, and what adds up in place.

Operations for each element of the input, of leading terms: what is done once for a row or a
channel (a mean's quotient, a root) is left out.
"""

from __future__ import annotations

import math
from typing import Any, Final

import torch

from shoestring.measure.formulas.cost import (
    FLOATS,
    FREE,
    Arguments,
    Cost,
    Formula,
    Options,
    elements,
    given,
    optional,
)
from shoestring.measure.formulas.pointwise import Weight

REDUCTIONS: Final[dict[str, Weight]] = {
    **dict.fromkeys(
        (
            "sum", "mean", "prod", "amax", "amin", "max", "min", "argmax", "argmin", "any", "all",
            "trace", "cumsum", "cumprod", "cummax", "cummin", "_cummax_helper", "_cummin_helper",
            "count_nonzero", "equal", "median", "nanmedian", "kthvalue", "topk", "segment_reduce",
            "_sparse_sum", "_sparse_csr_sum", "_sparse_csr_prod", "_nested_sum_backward",
            "_is_all_true", "_is_any_true", "bincount", "histc", "_segment_reduce_backward",
            "batch_norm_stats", "histogram", "_histogramdd_bin_edges", "_histogramdd_from_bin_cts",
            "_histogramdd_from_bin_tensors",
        ),
        1,
    ),
    **dict.fromkeys(("nansum", "aminmax", "_aminmax"), 2),
    # the power (or absolute value) and the sum
    **dict.fromkeys(
        ("norm", "native_norm", "linalg_vector_norm", "linalg__powsum", "frobenius_norm"), 2
    ),
    "hash_tensor": 0,  # of the bits, which are integers
    "dist": 3,
    "renorm": 3,
    "allclose": 4,
    # the mean (1), the difference to it, its square, their sum
    **dict.fromkeys(("var", "std", "var_mean", "std_mean"), 4),
    # the largest, the difference to it, exp, the sum
    **dict.fromkeys(("logsumexp", "_logcumsumexp", "logcumsumexp"), 4),
    # and the quotient, or one more difference
    **dict.fromkeys(("_softmax", "softmax", "_log_softmax", "log_softmax", "_safe_softmax"), 5),
    **dict.fromkeys(
        ("_sparse_softmax", "_sparse_log_softmax", "_nested_tensor_softmax_with_shape"), 5
    ),
    "_masked_softmax": 6,
    # y (g - sum g y); g - exp(y) sum g
    **dict.fromkeys(
        (
            "_softmax_backward_data", "_log_softmax_backward_data", "_masked_softmax_backward",
            "_sparse_softmax_backward_data", "_sparse_log_softmax_backward_data",
        ),
        4,
    ),
}  # fmt: skip
"""Operations for each element of the first input, by the operator's name."""

MOMENTS: Final = 6
"""A mean (1), a variance (3), the difference to the mean and the product with 1 / std."""


def _normalised(weight: int, bias: int) -> Formula:
    """Return the formula of a layer or group norm: moments, a weight, a bias."""

    def formula(args: Arguments, kwargs: Options, out: Any) -> Cost:
        each = MOMENTS + int(given(args, weight)) + int(given(args, bias))
        return Cost(0, 0, each * elements(args[0]))

    return formula


def _batch_norm(training: int | bool) -> Formula:
    """Return the formula of a batch norm; with running moments it only applies them.

    Args:
        training: place of the flag, or the flag itself.
    """

    def formula(args: Arguments, kwargs: Options, out: Any) -> Cost:
        train = training if isinstance(training, bool) else args[training]
        each = (MOMENTS if train else 2) + int(given(args, 1)) + int(given(args, 2))
        return Cost(0, 0, each * elements(args[0]))

    return formula


def _normalised_backward(weight: int, mask: int) -> Formula:
    """Return the formula of the gradient of a layer or group norm.

    With x^ = (x - mean) / std (2): of the input g w (1, with a weight), its sum (1), that of
    g w x^ (2) and (g w - a - x^ b) / std (4); of the weight the sum of g x^ (2), of the bias
    that of g (1).
    """

    def formula(args: Arguments, kwargs: Options, out: Any) -> Cost:
        wanted = args[mask]
        each = 2 if wanted[0] or wanted[1] else 0
        each += (7 + int(given(args, weight))) * int(wanted[0])
        each += 2 * int(wanted[1]) + int(wanted[2])
        return Cost(0, 0, each * elements(args[0]))

    return formula


def _batch_norm_backward(train: int | bool, mask: int | None) -> Formula:
    """Return the formula of the gradient of a batch norm.

    The sums of g and of g x^ (3) serve the input, the weight and the bias; x^ is 2 and the
    input's gradient (g - a - x^ b) w / std 4. With running moments it is g w / std (1).
    """

    def formula(args: Arguments, kwargs: Options, out: Any) -> Cost:
        wanted = (True, True, True) if mask is None else args[mask]
        training = train if isinstance(train, bool) else args[train]
        if training:
            each = 9 if wanted[0] else 4 * int(wanted[1]) + int(wanted[2])
        else:
            each = int(wanted[0]) + 4 * int(wanted[1]) + int(wanted[2])
        return Cost(0, 0, each * elements(args[0]))

    return formula


def _rms_norm(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``(input, normalized_shape, weight, eps)``: squares, their sum, 1 / rms, the weight."""
    return Cost(0, 0, (3 + int(given(args, 2))) * elements(args[0]))


def _rms_norm_backward(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``(grad_out, input, normalized_shape, rstd, weight, output_mask)``.

    x^ (1); of the input g w (1), the sum of g w x^ (2) and (g w - x^ b) / rms (3); of the
    weight the sum of g x^ (2).
    """
    wanted = args[5]
    each = 1 + (5 + int(given(args, 4))) * int(wanted[0]) + 2 * int(wanted[1])
    return Cost(0, 0, each * elements(args[0]))


def _weight_norm(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``_weight_norm_interface(v, g, dim)``: squares and their sum, then v g / norm."""
    return Cost(0, 0, 3 * elements(args[0]))


def _weight_norm_backward(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """The sum of grad v (2), then a grad - b v (3)."""
    return Cost(0, 0, 5 * elements(args[0]))


def _sorted(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``(self, dim)``: n log2 n comparisons for a row of n; all of it without a dim."""
    tensor = args[0]
    if not isinstance(tensor, torch.Tensor) or tensor.dtype not in FLOATS or not tensor.numel():
        return FREE
    n = tensor.numel()
    dim = optional(args, 1, kwargs.get("dim", -1))
    if isinstance(dim, int) and not isinstance(dim, bool) and tensor.dim():
        n = tensor.shape[dim]
    return Cost(0, 0, tensor.numel() * math.ceil(math.log2(n)) if n > 1 else 0)


def _distinct(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``unique`` of all numbers: sorted."""
    return _sorted((args[0], None), {"dim": None}, out)


def _searched(values: int, borders: int) -> Formula:
    """Return the formula of a bisection for each value."""

    def formula(args: Arguments, kwargs: Options, out: Any) -> Cost:
        lines = args[borders]
        steps = math.ceil(math.log2(lines.shape[-1] + 1)) if lines.dim() else 0
        return Cost(0, 0, out.numel() * steps if lines.dtype in FLOATS else 0)

    return formula


def _added(source: int, accumulate: int | None = None) -> Formula:
    """Return the formula of a sum into places: one operation for each number that is added.

    Args:
        source: place of the numbers.
        accumulate: place of the flag without which they are only copied.
    """

    def formula(args: Arguments, kwargs: Options, out: Any) -> Cost:
        if accumulate is not None and not optional(args, accumulate, default=False):
            return FREE
        return Cost(0, 0, elements(args[source]))

    return formula


def _added_by_index(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``index_add(self, dim, index, source, *, alpha)``."""
    each = 1 + int(kwargs.get("alpha", 1) != 1)
    return Cost(0, 0, each * elements(args[3]))


def _put(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``index_put(self, indices, values, accumulate)``: a single value goes to every place."""
    if not optional(args, 3, default=False):
        return FREE
    if args[2].numel() != 1:
        return Cost(0, 0, elements(args[2]))
    places = max((i.numel() for i in args[1] if i is not None), default=1)
    return Cost(0, 0, places if args[2].dtype in FLOATS else 0)


def _scattered(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``scatter(self, dim, index, src, *, reduce)``: only with ``reduce`` it computes."""
    reduced = kwargs.get("reduce") is not None or (len(args) > 4 and isinstance(args[4], str))
    return Cost(0, 0, args[2].numel() if reduced and args[0].dtype in FLOATS else 0)


SUMS: Final[dict[str, Formula]] = {
    "aten::native_layer_norm": _normalised(2, 3),
    "aten::native_layer_norm_backward": _normalised_backward(5, 7),
    "aten::native_group_norm": _normalised(1, 2),
    "aten::native_group_norm_backward": _normalised_backward(4, 9),
    **dict.fromkeys(
        (
            "aten::native_batch_norm",
            "aten::cudnn_batch_norm",
            "aten::miopen_batch_norm",
            "aten::_native_batch_norm_legit",
            "aten::_native_batch_norm_legit_functional",
        ),
        _batch_norm(5),
    ),
    "aten::_native_batch_norm_legit.no_stats": _batch_norm(training=True),
    "aten::_native_batch_norm_legit_no_training": _batch_norm(training=False),
    "aten::_batch_norm_with_update": _batch_norm(training=True),
    "aten::_batch_norm_with_update_functional": _batch_norm(training=True),
    "aten::_batch_norm_no_update": _batch_norm(training=False),
    "aten::native_batch_norm_backward": _batch_norm_backward(7, 9),
    "aten::batch_norm_backward": _batch_norm_backward(7, 9),
    "aten::cudnn_batch_norm_backward": _batch_norm_backward(True, None),
    "aten::miopen_batch_norm_backward": _batch_norm_backward(True, None),
    "aten::_fused_rms_norm": _rms_norm,
    "aten::_fused_rms_norm_backward": _rms_norm_backward,
    "aten::_weight_norm_interface": _weight_norm,
    "aten::_weight_norm_interface_backward": _weight_norm_backward,
    **dict.fromkeys(("aten::sort", "aten::mode"), _sorted),
    **dict.fromkeys(("aten::_unique", "aten::_unique2"), _distinct),
    "aten::searchsorted": _searched(1, 0),
    "aten::bucketize": _searched(0, 1),
    "aten::index_add": _added_by_index,
    **dict.fromkeys(
        (
            "aten::scatter_add",
            "aten::scatter_reduce",
            "aten::index_reduce",
        ),
        _added(3),
    ),
    "aten::scatter": _scattered,
    **dict.fromkeys(("aten::index_put", "aten::_index_put_impl", "aten::_unsafe_index_put"), _put),
    "aten::put": _added(2, accumulate=3),
    "aten::_unsafe_masked_index_put_accumulate": _added(3),
    "aten::unfold_backward": _added(0),
    "aten::col2im": _added(0),
    "aten::sparse_mask": lambda args, kwargs, out: FREE,
}
"""Formulas of norms, sorting and sums into places, by the operator's name."""
