"""Norms that keep their output, which the next layer keeps anyway, in place of their input."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol, Self

import torch
from torch import nn
from torch.nn import functional as F

from shoestring.activations._torch import is_transformed
from shoestring.activations.fewbit.second import refuse_second
from shoestring.core.errors import InputError


def layer_norm(
    input: torch.Tensor,  # noqa: A002  # torch's name
    normalized_shape: Sequence[int],
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> torch.Tensor:
    """Return the layer norm of the input, and keep the output; see `LayerNorm`.

    Args:
        input: ``[..., *normalized_shape]``.
        normalized_shape: sizes of the last dimensions, over which is normalised.
        weight: of that shape, or None for ones.
        bias: of that shape, or None for zeros.
        eps: added to the variance.

    Example:
        >>> layer_norm(torch.tensor([[-1.0, 1.0]]), (2,), eps=0.0).tolist()
        [[-1.0, 1.0]]
    """
    shape = list(normalized_shape)
    if _is_plain(input, weight, bias):
        return F.layer_norm(input, shape, weight, bias, eps)
    run: Callable[..., torch.Tensor] = _LayerNorm.apply
    return run(input, weight, bias, shape, eps)


def rms_norm(
    input: torch.Tensor,  # noqa: A002  # torch's name
    normalized_shape: Sequence[int],
    weight: torch.Tensor | None = None,
    eps: float | None = None,
) -> torch.Tensor:
    """Return the RMS norm of the input, and keep the output; see `RMSNorm`.

    Args:
        input: ``[..., *normalized_shape]``.
        normalized_shape: sizes of the last dimensions, over which is normalised.
        weight: of that shape, or None for ones.
        eps: added to the mean square; by default the input's own rounding.

    Example:
        >>> rms_norm(torch.tensor([[-3.0, 3.0]]), (2,), eps=0.0).tolist()
        [[-1.0, 1.0]]
    """
    shape = list(normalized_shape)
    if _is_plain(input, weight, None):
        return F.rms_norm(input, shape, weight, eps)
    run: Callable[..., torch.Tensor] = _RMSNorm.apply
    return run(input, weight, shape, eps)


class LayerNorm(nn.LayerNorm):
    r"""Layer norm that keeps its output and one number a row, and no input.

    .. math::

        y = w \hat x + b, \qquad \hat x = \frac{x - \mu}{\sigma}, \qquad
        dx = \frac{1}{\sigma} \left( \hat g - \overline{\hat g}
        - \hat x\, \overline{\hat g \hat x} \right), \quad \hat g = w\, dy

    With :math:`\hat x = (y - b) / w` made again in backward, and bars for means over a row. A
    linear layer or convolution that follows keeps y in the same storage, so nothing but
    :math:`1 / \sigma` is kept besides; where nothing else keeps y, it is as large as the input that
    torch keeps. Under autocast what follows keeps a rounded copy of its own, and nothing is saved.

    Values are torch's, bit for bit; gradients are so to rounding. With u the rounding of the
    output's dtype an entry of :math:`\hat x` is off by at most
    :math:`u (4 |\hat x| + |b| / |w|)`: a bias much larger than its weight costs digits. Where that
    may cost more than half of them, :math:`|b| \sqrt{2 u} > |w|`, or a weight is zero, the call
    keeps its input as torch does, and is exact. That is looked up in the parameters at each call
    that needs gradients: some microseconds on a CPU, and on a GPU it waits for the device.

    An output that is changed in place afterwards is refused in backward. Compiled, and under
    transforms of ``torch.func``, it is torch's own norm: there the compiler decides what is kept.

    Args:
        normalized_shape: sizes of the last dimensions, or the size of the last.
        eps: added to the variance.
        elementwise_affine: whether there are weight and bias.
        bias: whether there is a bias, beside a weight.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        RuntimeError: it is differentiated twice.

    Source: Andoorveedu et al., Tempo: accelerating transformer-based model training through memory
    footprint reduction (2022), section 3.2; Yang et al., Reducing fine-tuning memory overhead by
    approximate and memory-sharing backpropagation (2024), section 4, which leaves out w and b.

    Example:
        >>> norm = LayerNorm(2, eps=0.0)
        >>> norm(torch.tensor([[1.0, 5.0]])).tolist()
        [[-1.0, 1.0]]
    """

    @classmethod
    def of(cls, norm: nn.LayerNorm) -> Self:
        """Return a norm with the very parameters of another.

        Args:
            norm: of torch's own class; it is not changed.

        Raises:
            InputError: a subclass, whose forward may be another.

        Example:
            >>> plain = nn.LayerNorm(4)
            >>> LayerNorm.of(plain).weight is plain.weight
            True
        """
        _check_class(norm, nn.LayerNorm)
        made = cls(norm.normalized_shape, norm.eps, elementwise_affine=False)
        made.elementwise_affine = norm.elementwise_affine
        made.weight, made.bias = norm.weight, norm.bias
        return made.train(norm.training)

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  # torch's name
        """Return the output.

        Args:
            input: ``[..., *normalized_shape]``.
        """
        return layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)


class RMSNorm(nn.RMSNorm):
    r"""RMS norm that keeps its output and one number a row, and no input.

    .. math::

        y = w \hat x, \qquad \hat x = \frac{x}{\rho}, \quad \rho^2 = \overline{x^2} + \epsilon,
        \qquad dx = \frac{1}{\rho} \left( \hat g - \hat x\, \overline{\hat g \hat x} \right),
        \quad \hat g = w\, dy

    With :math:`\hat x = y / w` made again in backward, and bars for means over a row. It is off by
    some roundings of its own size, whatever the weight. The rest is as `LayerNorm` says: nothing
    but :math:`1 / \rho` is kept beside what the next layer keeps; where a weight is zero the call
    keeps its input, as torch does.

    Args:
        normalized_shape: sizes of the last dimensions, or the size of the last.
        eps: added to the mean square; by default the input's own rounding.
        elementwise_affine: whether there is a weight.
        device: of the weight.
        dtype: of the weight.

    Raises:
        RuntimeError: it is differentiated twice.

    Source: Zhang, Sennrich, Root mean square layer normalization (2019), equation 4; Yang et al.,
    Reducing fine-tuning memory overhead by approximate and memory-sharing backpropagation (2024),
    section 4.

    Example:
        >>> norm = RMSNorm(2, eps=0.0)
        >>> norm(torch.tensor([[5.0, -5.0]])).tolist()
        [[1.0, -1.0]]
    """

    @classmethod
    def of(cls, norm: nn.RMSNorm) -> Self:
        """Return a norm with the very parameter of another.

        Args:
            norm: of torch's own class; it is not changed.

        Raises:
            InputError: a subclass, whose forward may be another.

        Example:
            >>> plain = nn.RMSNorm(4)
            >>> RMSNorm.of(plain).weight is plain.weight
            True
        """
        _check_class(norm, nn.RMSNorm)
        made = cls(norm.normalized_shape, norm.eps, elementwise_affine=False)
        made.elementwise_affine = norm.elementwise_affine
        made.weight = norm.weight
        return made.train(norm.training)

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  # torch's name
        """Return the output.

        Args:
            input: ``[..., *normalized_shape]``.
        """
        return rms_norm(input, self.normalized_shape, self.weight, self.eps)


def _check_class(norm: nn.Module, expected: type[nn.Module]) -> None:
    if type(norm) is not expected:
        raise InputError(
            f"a {type(norm).__name__} is no torch.nn.{expected.__name__}.",
            hint="give one of torch's own class: a subclass may compute something else.",
        )


def _is_plain(
    input: torch.Tensor,  # noqa: A002
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
) -> bool:
    """Whether torch's own norm is taken: no gradient is needed, or the output would not do."""
    if torch.compiler.is_compiling():
        return True
    given = [tensor for tensor in (input, weight, bias) if tensor is not None]
    if not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given)):
        return True
    if not input.numel() or any(is_transformed(tensor) for tensor in given):
        return True
    return weight is not None and not _is_recoverable(input, weight, bias)


def _is_recoverable(
    input: torch.Tensor,  # noqa: A002
    weight: torch.Tensor,
    bias: torch.Tensor | None,
) -> bool:
    """Whether dividing the output by the weight gives back at least half of the digits."""
    limits = torch.finfo(input.dtype)
    half = math.sqrt(limits.eps)
    least = limits.tiny * half  # below it the output would be rounded as a tiny number is
    sizes = weight.detach().abs()
    enough = sizes >= least if bias is None else sizes >= (bias.detach().abs() * half).clamp_(least)
    return bool(enough.all())


class _Context(Protocol):
    """What autograd hands to forward and backward, as far as it is used here."""

    shape: list[int]
    dtype: torch.dtype
    needs_input_grad: tuple[bool, ...]
    saved_tensors: tuple[torch.Tensor | None, ...]

    def save_for_backward(self, *tensors: torch.Tensor | None) -> None: ...


class _LayerNorm(torch.autograd.Function):
    """Keeps the output and one over the deviation of each row."""

    @staticmethod
    def forward(
        ctx: _Context,
        input: torch.Tensor,  # noqa: A002
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
        shape: list[int],
        eps: float,
    ) -> torch.Tensor:
        """Return the output."""
        output, _, scale = torch.native_layer_norm(input, shape, weight, bias, eps)
        ctx.save_for_backward(output, scale, weight, bias)
        ctx.shape, ctx.dtype = shape, input.dtype
        return output

    @staticmethod
    def backward(ctx: _Context, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of input, weight and bias."""
        refuse_second("the layer norm that keeps its output")
        output, scale, weight, bias = ctx.saved_tensors
        assert output is not None
        assert scale is not None
        with torch.autocast(output.device.type, enabled=False):
            normal, grad, wide = _widened(output, grads[0], weight, bias)
            # torch's own backward, of rows that are normal already.
            zeros, ones = torch.zeros_like(scale, dtype=wide), torch.ones_like(scale, dtype=wide)
            head, offset = _cast(weight, wide), _cast(bias, wide)
            mask = list(ctx.needs_input_grad[:3])
            found = torch.ops.aten.native_layer_norm_backward(
                grad, normal, ctx.shape, zeros, ones, head, offset, mask
            )
            of_input = found[0].mul_(scale).to(ctx.dtype) if mask[0] else None
        return of_input, _like(found[1], weight), _like(found[2], bias), None, None


class _RMSNorm(torch.autograd.Function):
    """Keeps the output and one over the root mean square of each row."""

    @staticmethod
    def forward(
        ctx: _Context,
        input: torch.Tensor,  # noqa: A002
        weight: torch.Tensor | None,
        shape: list[int],
        eps: float | None,
    ) -> torch.Tensor:
        """Return the output."""
        output = F.rms_norm(input, shape, weight, eps)
        small = torch.finfo(input.dtype).eps if eps is None else eps
        dims = tuple(range(-len(shape), 0))
        wide = torch.float64 if input.dtype is torch.float64 else torch.float32
        length = torch.linalg.vector_norm(input, dim=dims, keepdim=True, dtype=wide)
        scale = length.square_().div_(math.prod(shape)).add_(small).rsqrt_()
        ctx.save_for_backward(output, scale, weight)
        ctx.shape, ctx.dtype = shape, input.dtype
        return output

    @staticmethod
    def backward(ctx: _Context, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of input and weight."""
        refuse_second("the RMS norm that keeps its output")
        output, scale, weight = ctx.saved_tensors
        assert output is not None
        assert scale is not None
        of_weight: torch.Tensor | None = None
        of_input: torch.Tensor | None = None
        normal, grad, _ = _widened(output, grads[0], weight, None)
        if weight is not None and ctx.needs_input_grad[1]:
            of_weight = (grad * normal).sum_to_size(weight.shape).to(weight.dtype)
        if ctx.needs_input_grad[0]:
            dims = tuple(range(-len(ctx.shape), 0))
            scaled = grad if weight is None else grad * weight
            along = (scaled * normal).mean(dims, keepdim=True)
            of_input = torch.addcmul(scaled, normal, along, value=-1).mul_(scale).to(ctx.dtype)
        return of_input, of_weight, None, None


def _widened(
    output: torch.Tensor,
    grad: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.dtype]:
    """Return the normal rows and the gradient, in the dtype that a norm computes in."""
    wide = torch.float64 if output.dtype is torch.float64 else torch.float32
    normal = output.to(wide)
    if bias is not None:
        normal = normal - bias
    if weight is not None:
        normal = normal / weight if normal is output else normal.div_(weight)
    return normal, grad.to(wide), wide


def _cast(tensor: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    return None if tensor is None else tensor.to(dtype)


def _like(found: torch.Tensor | None, parameter: torch.Tensor | None) -> torch.Tensor | None:
    return found if found is None or parameter is None else found.to(parameter.dtype)
