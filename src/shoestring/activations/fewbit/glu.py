"""Gated linear units that keep their two inputs, and compute the gate's activation again."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Final, NamedTuple, Protocol

import torch
from torch import nn
from torch.nn import functional as F

from shoestring.activations.fewbit.dropout import transformed
from shoestring.core.errors import InputError


def glu(a: torch.Tensor, b: torch.Tensor, activation: str = "sigmoid") -> torch.Tensor:
    r"""Return ``act(a) * b`` and keep a and b alone.

    .. math::

        y = \sigma(a) b, \qquad da = \sigma'(a) (b\, dy), \qquad db = \sigma(a)\, dy

    torch keeps :math:`\sigma(a)` as well. It is computed again in backward, by the same operators
    in the same order, so that values and gradients are torch's, bit for bit. It can be
    differentiated twice, and under transforms of ``torch.func`` it is torch's own two operators.

    For sigmoid and relu torch keeps :math:`\sigma(a)` in place of a: there nothing is gained where
    a is a tensor by itself, and a third where a and b are halves of one, which b keeps whole.

    Args:
        a: the gate, before its activation.
        b: what is gated; of the same shape and dtype.
        activation: ``sigmoid``, ``silu``, ``gelu``, ``gelu_tanh`` or ``relu``.

    Raises:
        InputError: an unknown activation, or shapes or dtypes that differ.

    Source: Shazeer, GLU variants improve transformer (2020), equations 4 and 5; Dauphin et al.,
    Language modeling with gated convolutional networks (2017), equation 1.

    Example:
        >>> glu(torch.tensor([-1.0, 2.0]), torch.tensor([3.0, 4.0]), "relu").tolist()
        [0.0, 8.0]
    """
    check_activation(activation)
    if a.shape != b.shape or a.dtype is not b.dtype:
        raise InputError(
            f"a {tuple(a.shape)} of {a.dtype} and b {tuple(b.shape)} of {b.dtype} differ.",
            hint="give two tensors of one shape and dtype.",
        )
    if transformed(a, b):
        return _GATES[activation].forward(a) * b
    run: Callable[..., torch.Tensor] = _Gated.apply
    return run(a, b, activation)


def check_activation(activation: str) -> None:
    """Refuse an activation that is not there.

    Args:
        activation: its name.

    Raises:
        InputError: there is none of that name.
    """
    if activation not in _GATES:
        raise InputError(
            f"there is no gate called {activation!r}.", hint=f"one of {', '.join(_GATES)}."
        )


class _GatedUnit(nn.Module):
    """What splits its input in two halves and gates one by the other, as `torch.nn.GLU` does.

    That one keeps its input alone already.
    """

    activation: ClassVar[str]

    def __init__(self, dim: int = -1, *, gate_first: bool = False) -> None:
        super().__init__()
        self.dim = dim
        self.gate_first = gate_first

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  # torch's name
        """Return the output.

        Args:
            input: of an even size along ``dim``.

        Raises:
            InputError: the size is odd.
        """
        if input.shape[self.dim] % 2:
            raise InputError(
                f"{input.shape[self.dim]} columns along dimension {self.dim} have no halves.",
                hint="give an input of an even size there.",
            )
        first, second = input.chunk(2, self.dim)
        gate, value = (first, second) if self.gate_first else (second, first)
        return glu(gate, value, self.activation)

    def extra_repr(self) -> str:
        """Return the options, as ``print`` shows them."""
        return f"dim={self.dim}, gate_first={self.gate_first}"


class ReGLU(_GatedUnit):
    """Gated unit with relu: one half times the relu of the other; see `glu`.

    Args:
        dim: along which the input is split.
        gate_first: whether the gate is the first half; by default it is the second.

    Source: Shazeer, GLU variants improve transformer (2020), equation 5.

    Example:
        >>> ReGLU()(torch.tensor([3.0, 2.0])).tolist()
        [6.0]
    """

    activation: ClassVar[str] = "relu"


class GEGLU(_GatedUnit):
    """Gated unit with GELU: one half times the GELU of the other; see `glu`.

    Args:
        dim: along which the input is split.
        gate_first: whether the gate is the first half; by default it is the second.

    Source: Shazeer, GLU variants improve transformer (2020), equation 5.

    Example:
        >>> GEGLU()(torch.tensor([3.0, 0.0])).tolist()
        [0.0]
    """

    activation: ClassVar[str] = "gelu"


class SwiGLU(_GatedUnit):
    """Gated unit with SiLU: one half times the SiLU of the other; see `glu`.

    Args:
        dim: along which the input is split.
        gate_first: whether the gate is the first half; by default it is the second. Fused
            projections ``gate_up`` of language models have it first.

    Source: Shazeer, GLU variants improve transformer (2020), equation 5.

    Example:
        >>> SwiGLU(gate_first=True)(torch.tensor([0.0, 3.0])).tolist()
        [0.0]
    """

    activation: ClassVar[str] = "silu"


class _Gate(NamedTuple):
    """An activation.

    Attributes:
        forward: the activation.
        backward: from the gradient of its result, its input and its result to that of its input.
    """

    forward: Callable[[torch.Tensor], torch.Tensor]
    backward: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def _gelu(approximate: str) -> _Gate:
    return _Gate(
        lambda a: F.gelu(a, approximate=approximate),
        lambda grad, a, _: torch.ops.aten.gelu_backward(grad, a, approximate=approximate),
    )


def _silu_backward(grad: torch.Tensor, a: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    if not torch.is_grad_enabled():
        found: torch.Tensor = torch.ops.aten.silu_backward(grad, a)
        return found
    share = torch.sigmoid(a)  # that operator has no derivative itself
    return grad * share * (1 + a * (1 - share))


# torch's own backwards: the same bits, and differentiable themselves.
_GATES: Final[dict[str, _Gate]] = {
    "sigmoid": _Gate(
        torch.sigmoid, lambda grad, _, gate: torch.ops.aten.sigmoid_backward(grad, gate)
    ),
    "silu": _Gate(F.silu, _silu_backward),
    "gelu": _gelu("none"),
    "gelu_tanh": _gelu("tanh"),
    "relu": _Gate(
        torch.relu, lambda grad, _, gate: torch.ops.aten.threshold_backward(grad, gate, 0)
    ),
}


class _Context(Protocol):
    """What autograd hands to forward and backward, as far as it is used here."""

    activation: str
    needs_input_grad: tuple[bool, ...]
    saved_tensors: tuple[torch.Tensor, ...]

    def save_for_backward(self, *tensors: torch.Tensor) -> None: ...


class _Gated(torch.autograd.Function):
    """Keeps gate and value."""

    @staticmethod
    def forward(ctx: _Context, a: torch.Tensor, b: torch.Tensor, activation: str) -> torch.Tensor:
        """Return the output."""
        ctx.save_for_backward(a, b)
        ctx.activation = activation
        return _GATES[activation].forward(a) * b

    @staticmethod
    def backward(ctx: _Context, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of gate and value."""
        a, b = ctx.saved_tensors
        act = _GATES[ctx.activation]
        gate = act.forward(a)
        of_gate = act.backward(grads[0] * b, a, gate) if ctx.needs_input_grad[0] else None
        return of_gate, grads[0] * gate if ctx.needs_input_grad[1] else None, None
