"""Losses and their gradients, embeddings' sums: scalar operations.

A loss counts its formula for each element of its input, and one more for the sum or mean where
it is reduced.
"""

from __future__ import annotations

import math
from typing import Any, Final

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


def _loss(each: int, reduction: int, *weights: int) -> Formula:
    """Return the formula of a loss.

    Args:
        each: operations for each element of the input.
        reduction: place of the argument that says how it is reduced; 0 for not at all.
        weights: places of tensors that each cost one multiplication, if given.
    """

    def formula(args: Arguments, kwargs: Options, out: Any) -> Cost:
        more = int(optional(args, reduction, 1) != 0) + sum(given(args, w) for w in weights)
        return Cost(0, 0, (each + more) * elements(args[0]))

    return formula


def _gradient(each: int, *weights: int) -> Formula:
    """Return the formula of a loss's gradient ``(grad_output, input, target, ...)``."""

    def formula(args: Arguments, kwargs: Options, out: Any) -> Cost:
        return Cost(0, 0, (each + sum(given(args, w) for w in weights)) * elements(args[1]))

    return formula


def _likelihood(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``nll_loss_forward(self [.., C, ..], target, weight, reduction)``: once for each target."""
    if not elements(args[0]):
        return Cost(0, 0, 0)
    each = 1 + int(given(args, 2)) + int(args[3] != 0)
    return Cost(0, 0, each * args[1].numel())


def _likelihood_backward(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``(grad_output, self, target, weight, ...)``: the sign, the quotient, a weight."""
    return Cost(0, 0, (2 + int(given(args, 3))) * args[2].numel())


def _alignment(lengths: int, each: int) -> Formula:
    """Return the formula of the CTC recursion over 2 L + 1 states.

    For each time step and state: the largest of three (2), differences to it (3), exp (3), their
    sum (2), log and two sums (3), which is 13; backward the same recursion, then the gradient.
    """

    def formula(args: Arguments, kwargs: Options, out: Any) -> Cost:
        probabilities, targets = (args[lengths - 3 + i] for i in range(2))
        time, batch, _ = probabilities.shape if probabilities.dim() == 3 else (1, 1, 1)
        longest = targets.shape[-1] if targets.dim() > 1 else -(-targets.numel() // max(1, batch))
        return Cost(0, 0, each * time * batch * (2 * longest + 1))

    return formula


def _bag(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``_embedding_bag(weight, indices, offsets, scale, mode, sparse, per_sample_weights)``.

    Rows are summed (or compared): one operation a number, one more with weights, and a quotient
    for each output of a mean.
    """
    weight, indices = args[0], args[1]
    if not elements(weight):
        return Cost(0, 0, 0)
    numbers = indices.numel() * weight.shape[-1]
    total = numbers * (1 + int(given(args, 6)))
    return Cost(0, 0, total + (out[0].numel() if optional(args, 4, 0) == 1 else 0))


def _bag_backward(mode: int, weights: int) -> Formula:
    """Return the formula of ``(grad, indices, ...)``: each row's gradient is added."""

    def formula(args: Arguments, kwargs: Options, out: Any) -> Cost:
        numbers = args[1].numel() * args[0].shape[-1]
        if args[mode] == 2:  # of the largest only
            numbers = args[0].numel()
        return Cost(0, 0, numbers * (1 + int(args[mode] == 1) + int(given(args, weights))))

    return formula


def _bag_weights(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``(grad, weight, indices, ...)``: the gradient of the weights, a dot product each."""
    return Cost(0, 0, 2 * args[2].numel() * args[1].shape[-1])


def _embedding_backward(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``(grad_output, indices, num_weights, ...)``: each row is added to its place."""
    return Cost(0, 0, elements(args[0]))


def _embedding_renorm(args: Arguments, kwargs: Options, out: Any) -> Cost:
    """``(self, indices, max_norm, norm_type)``: a norm (2) and a scale for each row used."""
    return Cost(0, 0, 3 * args[1].numel() * args[0].shape[-1] if elements(args[0]) else 0)


def _linear_cross_entropy(gradients: int | None) -> Formula:
    """Return the formula of torch's loss on chunks of logits: ``(input, weight, ...)``.

    Of input [N, D] and weight [V, D] a product makes the logits [N, V], then a bias (1) and the
    softmax (5); each gradient that is made on the way is another product, and that of the logits
    3 operations.

    Args:
        gradients: place of the flags that say which gradients are made: input, weight, bias.
    """

    def formula(args: Arguments, kwargs: Options, out: Any) -> Cost:
        inputs, weight = args[0], args[1]
        rows, classes = math.prod(inputs.shape[:-1]), weight.shape[0]
        made = [bool(flag) for flag in args[gradients : gradients + 3]] if gradients else []
        each = 5 + int(given(args, 3)) + 3 * int(any(made)) + int(sum(made[2:]))
        macs = rows * classes * inputs.shape[-1] * (1 + sum(made[:2]))
        return contraction(macs, inputs, each * rows * classes)

    return formula


LOSSES: Final[dict[str, Formula]] = {
    "aten::mse_loss": _loss(2, 2),
    "aten::smooth_l1_loss": _loss(5, 2),  # |d|, a comparison, d^2 / 2b: or |d| - b/2
    "aten::huber_loss": _loss(5, 2),
    "aten::binary_cross_entropy": _loss(8, 3, 2),  # -(y log p + (1 - y) log(1 - p))
    # (1 - y) x - (min(x, 0) - log1p(exp(-|x|)))
    "aten::binary_cross_entropy_with_logits": _loss(9, 4, 2, 3),
    "aten::soft_margin_loss": _loss(4, 2),
    "aten::multi_margin_loss": _loss(4, 5, 4),
    "aten::multilabel_margin_loss_forward": _loss(4, 2),
    "aten::mse_loss_backward": _gradient(3),
    "aten::smooth_l1_loss_backward": _gradient(4),
    "aten::huber_loss_backward": _gradient(4),
    "aten::binary_cross_entropy_backward": _gradient(5, 3),
    "aten::soft_margin_loss_backward": _gradient(6),
    "aten::multi_margin_loss_backward": _gradient(4),
    "aten::multilabel_margin_loss_backward": _gradient(4),
    **dict.fromkeys(("aten::nll_loss_forward", "aten::nll_loss2d_forward"), _likelihood),
    **dict.fromkeys(("aten::nll_loss_backward", "aten::nll_loss2d_backward"), _likelihood_backward),
    **dict.fromkeys(("aten::_ctc_loss", "aten::_cudnn_ctc_loss"), _alignment(3, 13)),
    "aten::_ctc_loss_backward": _alignment(4, 20),
    **dict.fromkeys(("aten::_embedding_bag", "aten::_embedding_bag_forward_only"), _bag),
    "aten::_embedding_bag_backward": _bag_backward(8, 10),
    "aten::_embedding_bag_dense_backward": _bag_backward(7, 8),
    "aten::_embedding_bag_per_sample_weights_backward": _bag_weights,
    "aten::embedding_dense_backward": _embedding_backward,
    "aten::embedding_renorm": _embedding_renorm,
}
"""Formulas of losses and embeddings, by the operator's name."""

CONTRACTING_LOSSES: Final[dict[str, Formula]] = {
    "torch_nn::_linear_cross_entropy_batch_chunked": _linear_cross_entropy(12),
    "torch_nn::_linear_cross_entropy_batch_chunked_no_reduction": _linear_cross_entropy(None),
}
"""Formulas of losses that make their logits themselves."""
