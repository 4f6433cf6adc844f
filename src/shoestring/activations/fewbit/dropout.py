"""Dropout whose mask is kept as one bit an element."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import nn
from torch.nn import functional as F

from shoestring.activations._torch import is_transformed
from shoestring.kernels.codes import pack, unpack


def dropout(
    input: torch.Tensor,  # noqa: A002  # torch's name
    p: float = 0.5,
    training: bool = True,  # as torch has it
) -> torch.Tensor:
    """Zero elements at random and scale the others; the mask is kept as bits. See `Dropout`.

    Args:
        input: of any shape.
        p: probability that an element becomes zero.
        training: False returns the input.

    Returns:
        What `torch.nn.functional.dropout` returns, with the same random numbers.

    Raises:
        ValueError: a p outside 0 to 1; torch's own.

    Example:
        >>> dropout(torch.ones(4), p=0.5, training=False).tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    needed = torch.is_grad_enabled() and input.requires_grad
    if not drops(p, input, training=training) or not needed or transformed(input):
        return F.dropout(input, p, training)
    run: Callable[..., torch.Tensor] = _Dropout.apply
    return run(input, p)


class Dropout(nn.Dropout):
    r"""Dropout that keeps a bit an element for backward: the numbers and gradients of torch's.

    .. math::

        y_i = \frac{b_i}{1 - p} x_i, \qquad dx_i = \frac{b_i}{1 - p} dy_i

    With :math:`b_i` the mask, 1 with probability 1 - p. torch keeps it scaled, in the dtype of the
    input, on a CPU, and as a byte on a GPU. Here it takes ``8 ceil(n / 64)`` bytes. Random numbers,
    values and gradients are torch's, bit for bit; it can be differentiated any number of times.

    Under transforms of ``torch.func`` it is torch's own.

    Args:
        p: probability that an element becomes zero.

    Raises:
        ValueError: a p outside 0 to 1; torch's own.

    Source: Srivastava et al., Dropout: a simple way to prevent neural networks from overfitting
    (2014), section 4.

    Example:
        >>> layer = Dropout(0.5)
        >>> x = torch.ones(64, requires_grad=True)
        >>> y = layer(x)
        >>> y.sum().backward()
        >>> torch.equal(x.grad, y)  # both are the scaled mask
        True
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  # torch's name
        """Return the output.

        Args:
            input: of any shape.
        """
        return dropout(input, self.p, self.training)


def drops(p: float, input: torch.Tensor, *, training: bool) -> bool:  # noqa: A002
    """Return whether a mask is drawn at all: not where everything is kept, or nothing.

    Args:
        p: probability that an element becomes zero.
        input: of any shape.
        training: as of `dropout`.
    """
    return training and 0 < p < 1 and input.numel() > 0


def transformed(*tensors: torch.Tensor) -> bool:
    """Return whether a transform of ``torch.func`` is under way, which sees torch's own alone.

    Args:
        tensors: that it might have.
    """
    return not torch.compiler.is_compiling() and any(is_transformed(each) for each in tensors)


# --- operators: compilers take them as they are, and never draw a mask twice -------------


@torch.library.custom_op(
    "shoestring::dropout", mutates_args=(), tags=(torch.Tag.nondeterministic_seeded,)
)
def draw(input: torch.Tensor, p: float) -> tuple[torch.Tensor, torch.Tensor]:  # noqa: A002
    """Return what torch's dropout returns, and the mask as bits.

    Args:
        input: of any shape, not empty.
        p: above 0 and below 1.
    """
    if input.device.type == "cpu":
        noise = torch.empty_like(input).bernoulli_(1 - p)
        packed = pack(noise.bool(), 1)
        return input * noise.div_(1 - p), packed
    output, mask = torch.native_dropout(input, p, True)  # torch's signature
    return output, pack(mask, 1)


@draw.register_fake
def _(input: torch.Tensor, p: float) -> tuple[torch.Tensor, torch.Tensor]:  # noqa: A002
    packed = input.new_empty(8 * ((input.numel() + 63) // 64), dtype=torch.uint8)
    return torch.empty_like(input), packed


@torch.library.custom_op("shoestring::dropout_noise", mutates_args=())
def noise_of(packed: torch.Tensor, like: torch.Tensor, p: float) -> torch.Tensor:
    """Return what dropout multiplied by: zeros, and ``1 / (1 - p)``.

    Args:
        packed: the mask as bits.
        like: of the shape and dtype of the result.
        p: as it was drawn with.
    """
    mask = unpack(packed, 1, like.numel()).view(like.shape).to(like.dtype)
    # Each as torch has it: a quotient on the CPU, a product elsewhere.
    return mask.div_(1 - p) if like.device.type == "cpu" else mask.mul_(1 / (1 - p))


@noise_of.register_fake
def _(packed: torch.Tensor, like: torch.Tensor, p: float) -> torch.Tensor:
    return like.new_empty(like.shape)


# --- autograd ----------------------------------------------------------------------------


class _Context(Protocol):
    """What autograd hands to forward and backward, as far as it is used here."""

    p: float
    saved_tensors: tuple[torch.Tensor, ...]

    def save_for_backward(self, *tensors: torch.Tensor) -> None: ...


class _Dropout(torch.autograd.Function):
    """Keeps the mask as bits."""

    @staticmethod
    def forward(ctx: _Context, input: torch.Tensor, p: float) -> torch.Tensor:  # noqa: A002
        """Return the output."""
        found: tuple[torch.Tensor, torch.Tensor] = draw(input, p)
        output, packed = found
        ctx.save_for_backward(packed)
        ctx.p = p
        return output

    @staticmethod
    def backward(ctx: _Context, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradient of the input."""
        (packed,) = ctx.saved_tensors
        noise: torch.Tensor = noise_of(packed, grads[0].detach(), ctx.p)
        return grads[0] * noise, None
