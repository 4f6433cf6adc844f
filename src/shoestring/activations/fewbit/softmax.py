"""Softmax with dropout, as attention has it: probabilities are kept once, the mask as bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch.nn import functional as F

from shoestring.activations.fewbit._torch import softmax_backward
from shoestring.activations.fewbit.dropout import draw, drops, noise_of, transformed
from shoestring.activations.fewbit.second import refuse_second


def softmax_dropout(
    scores: torch.Tensor,
    dim: int = -1,
    p: float = 0.0,
    training: bool = True,  # as torch has it
) -> torch.Tensor:
    r"""Return ``dropout(softmax(scores))``; the softmax is kept, and the mask as bits.

    .. math::

        P = \mathrm{softmax}(S), \qquad D = P \circ B / (1 - p), \qquad
        dS = P \circ (dP - \langle P, dP \rangle), \quad dP = dD \circ B / (1 - p)

    With B the mask. What follows keeps D too, if it is a product: then `attention_values` keeps
    less. Random numbers, values and gradients are torch's.

    Args:
        scores: S, of any shape.
        dim: along which probabilities add up to one.
        p: probability that one becomes zero.
        training: False drops nothing.

    Raises:
        RuntimeError: it is differentiated twice, with dropout.

    Source: Andoorveedu et al., Tempo: accelerating transformer-based model training through memory
    footprint reduction (2022), section 3.2.

    Example:
        >>> softmax_dropout(torch.zeros(1, 4)).tolist()
        [[0.25, 0.25, 0.25, 0.25]]
    """
    if not drops(p, scores, training=training) or not _needed(scores) or transformed(scores):
        return F.dropout(F.softmax(scores, dim), p, training)
    run: Callable[..., torch.Tensor] = _SoftmaxDropout.apply
    return run(scores, dim, p)


def attention_values(
    scores: torch.Tensor,
    value: torch.Tensor,
    p: float = 0.0,
    *,
    training: bool = True,
) -> torch.Tensor:
    r"""Return ``dropout(softmax(scores)) @ value``, and keep the softmax, bits and the value.

    .. math::

        P = \mathrm{softmax}(S), \qquad D = P \circ B / (1 - p), \qquad O = D V

    With B the mask. torch keeps P, the scaled mask and D, each of the size of S. Here D is computed
    again in backward from P and B, so that beside P it takes a bit an element. Random numbers,
    values and gradients are torch's. Without dropout torch keeps P and V alone, and so does
    this.
    Kernels that never hold P (of ``scaled_dot_product_attention``, where it takes one) keep less
    still: this is for scores or a dropout that they do not take.

    Args:
        scores: S, ``[..., T, N]``, masked already.
        value: V, ``[..., N, d]``; leading dimensions broadcast.
        p: probability that a probability becomes zero.
        training: False drops nothing.

    Returns:
        O, ``[..., T, d]``.

    Raises:
        RuntimeError: it is differentiated twice, with dropout.

    Source: Andoorveedu et al., Tempo: accelerating transformer-based model training through memory
    footprint reduction (2022), section 3.2.

    Example:
        >>> attention_values(torch.zeros(1, 2), torch.tensor([[1.0], [3.0]])).tolist()
        [[2.0]]
    """
    plain = not drops(p, scores, training=training) or transformed(scores, value)
    if plain or not _needed(scores, value):
        return F.dropout(F.softmax(scores, -1), p, training) @ value
    run: Callable[..., torch.Tensor] = _AttentionValues.apply
    return run(scores, value, p)


def _needed(*tensors: torch.Tensor) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


class _Context(Protocol):
    """What autograd hands to forward and backward, as far as it is used here."""

    dim: int
    p: float
    dtype: torch.dtype
    needs_input_grad: tuple[bool, ...]
    saved_tensors: tuple[torch.Tensor, ...]

    def save_for_backward(self, *tensors: torch.Tensor) -> None: ...


class _SoftmaxDropout(torch.autograd.Function):
    """Keeps the softmax and the mask as bits."""

    @staticmethod
    def forward(ctx: _Context, scores: torch.Tensor, dim: int, p: float) -> torch.Tensor:
        """Return the probabilities that are left, scaled."""
        chances = F.softmax(scores, dim)
        found: tuple[torch.Tensor, torch.Tensor] = draw(chances, p)
        dropped, packed = found
        ctx.save_for_backward(chances, packed)
        ctx.dim, ctx.p, ctx.dtype = dim, p, scores.dtype
        return dropped

    @staticmethod
    def backward(ctx: _Context, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradient of the scores."""
        refuse_second("the softmax with dropout")
        chances, packed = ctx.saved_tensors
        grad = grads[0] * noise_of(packed, chances, ctx.p)
        return softmax_backward(grad, chances, ctx.dim).to(ctx.dtype), None, None


class _AttentionValues(torch.autograd.Function):
    """Keeps the softmax, the mask as bits, and the value."""

    @staticmethod
    def forward(ctx: _Context, scores: torch.Tensor, value: torch.Tensor, p: float) -> torch.Tensor:
        """Return the mean of the values."""
        chances = F.softmax(scores, -1)
        found: tuple[torch.Tensor, torch.Tensor] = draw(chances, p)
        dropped, packed = found
        ctx.save_for_backward(chances, packed, value)
        ctx.p, ctx.dtype = p, scores.dtype
        return dropped @ value

    @staticmethod
    def backward(ctx: _Context, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of scores and value."""
        refuse_second("attention with dropout")
        with torch.autocast(grads[0].device.type, enabled=False):
            return _attention_gradients(ctx, grads[0])


def _attention_gradients(
    ctx: _Context, grad: torch.Tensor
) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
    chances, packed, value = ctx.saved_tensors
    noise = noise_of(packed, chances, ctx.p)
    of_scores: torch.Tensor | None = None
    of_value: torch.Tensor | None = None
    if ctx.needs_input_grad[1]:
        dropped = (chances * noise).to(grad.dtype)
        product = dropped.transpose(-2, -1) @ grad
        del dropped
        of_value = product.sum_to_size(value.shape).to(value.dtype)
    if ctx.needs_input_grad[0]:
        product = grad @ value.to(grad.dtype).transpose(-2, -1)
        of_dropped = product.sum_to_size(chances.shape).to(chances.dtype)
        of_scores = softmax_backward(of_dropped * noise, chances, -1).to(ctx.dtype)
    return of_scores, of_value, None
