"""Derivatives of torch's smooth activations, as closed forms that stay finite at infinity.

Each takes a float32 or float64 tensor and returns one of its shape and dtype: the limit at plus
and minus infinity, NaN at NaN. Those of the output take what the activation returned.
"""

from __future__ import annotations

import math
from typing import Final

import torch

SELU_ALPHA: Final = 1.6732632423543772848170429916717
SELU_SCALE: Final = 1.0507009873554804934193349852946
_GELU_CUBE: Final = 0.044715
# Beyond these the factor of x underflows; x itself may be infinite.
_NORMAL_END: Final = 40.0
_LOGISTIC_END: Final = 800.0


def gelu(x: torch.Tensor) -> torch.Tensor:
    """Return Phi(x) + x phi(x).

    Args:
        x: where.
    """
    near = x.clamp(-_NORMAL_END, _NORMAL_END)
    density = torch.exp(-0.5 * near * near) * (1 / math.sqrt(2 * math.pi))
    return 0.5 * torch.erfc(near * -math.sqrt(0.5)) + near * density


def gelu_tanh(x: torch.Tensor) -> torch.Tensor:
    """Return the derivative of gelu's form with tanh.

    Args:
        x: where.
    """
    near = x.clamp(-_NORMAL_END, _NORMAL_END)
    rate = math.sqrt(2 / math.pi)
    inner = rate * (near + _GELU_CUBE * near**3)
    slope = rate * (1 + 3 * _GELU_CUBE * near * near)
    return torch.sigmoid(2 * inner) + 0.5 * near * tanh(inner) * slope


def silu(x: torch.Tensor) -> torch.Tensor:
    """Return s(x) (1 + x s(-x)), with s the logistic function.

    Args:
        x: where.
    """
    near = x.clamp(-_LOGISTIC_END, _LOGISTIC_END)
    return torch.sigmoid(near) * (1 + near * torch.sigmoid(-near))


def mish(x: torch.Tensor) -> torch.Tensor:
    """Return tanh(p) + x s(x) (1 - tanh(p)^2), with p = softplus(x).

    Args:
        x: where.
    """
    near = x.clamp(-_LOGISTIC_END, _LOGISTIC_END)
    plus = torch.logaddexp(near, torch.zeros_like(near))
    return torch.tanh(plus) + near * torch.sigmoid(near) * tanh(plus)


def elu(x: torch.Tensor, alpha: float) -> torch.Tensor:
    """Return 1 above zero, and alpha exp(x) up to it.

    Args:
        x: where.
        alpha: the depth.
    """
    return _exponential(x, 1.0, alpha, 1.0)


def celu(x: torch.Tensor, alpha: float) -> torch.Tensor:
    """Return 1 above zero, and exp(x / alpha) up to it.

    Args:
        x: where.
        alpha: the depth.
    """
    return _exponential(x, 1.0, 1.0, alpha)


def selu(x: torch.Tensor) -> torch.Tensor:
    """Return the scale above zero, and scale times alpha exp(x) up to it.

    Args:
        x: where.
    """
    return _exponential(x, SELU_SCALE, SELU_SCALE * SELU_ALPHA, 1.0)


def _exponential(x: torch.Tensor, above: float, factor: float, width: float) -> torch.Tensor:
    below = factor * torch.exp(x.clamp(max=0) / width)
    # NaN is not above zero, and stays in the exponential.
    return torch.where(x > 0, above, below)


def hardswish(x: torch.Tensor) -> torch.Tensor:
    """Return 0 up to -3, x / 3 + 1 / 2 between, and 1 from 3 on.

    Args:
        x: where.
    """
    between = x.clamp(-3, 3) / 3 + 0.5
    return torch.where(x <= -3, 0.0, torch.where(x >= 3, 1.0, between))


def sigmoid(x: torch.Tensor) -> torch.Tensor:
    """Return s(x) s(-x).

    Args:
        x: where.
    """
    return torch.sigmoid(x) * torch.sigmoid(-x)


def tanh(x: torch.Tensor) -> torch.Tensor:
    """Return one less the square of tanh, without cancellation.

    Args:
        x: where.
    """
    return 4 * sigmoid(2 * x)


def tanhshrink(x: torch.Tensor) -> torch.Tensor:
    """Return tanh(x)^2.

    Args:
        x: where.
    """
    return torch.tanh(x) ** 2


def softsign(x: torch.Tensor) -> torch.Tensor:
    """Return 1 / (1 + |x|)^2.

    Args:
        x: where.
    """
    return (1 + x.abs()) ** -2


def softplus(x: torch.Tensor, beta: float, threshold: float) -> torch.Tensor:
    """Return s(beta x), and 1 where beta x is above the threshold.

    Args:
        x: where.
        beta: the sharpness.
        threshold: from where on torch returns x itself.
    """
    scaled = x * beta
    return torch.where(scaled > threshold, 1.0, torch.sigmoid(scaled))


def logsigmoid(x: torch.Tensor) -> torch.Tensor:
    """Return s(-x).

    Args:
        x: where.
    """
    return torch.sigmoid(-x)


def sigmoid_output(y: torch.Tensor) -> torch.Tensor:
    """Return y (1 - y).

    Args:
        y: sigmoid(x).
    """
    return y * (1 - y)


def tanh_output(y: torch.Tensor) -> torch.Tensor:
    """Return 1 - y^2.

    Args:
        y: tanh(x).
    """
    return (1 - y) * (1 + y)


def elu_output(y: torch.Tensor, alpha: float) -> torch.Tensor:
    """Return 1 above zero, and y + alpha up to it.

    Args:
        y: elu(x).
        alpha: the depth.
    """
    return torch.where(y > 0, 1.0, y + alpha)


def celu_output(y: torch.Tensor, alpha: float) -> torch.Tensor:
    """Return 1 above zero, and y / alpha + 1 up to it.

    Args:
        y: celu(x).
        alpha: the depth.
    """
    return torch.where(y > 0, 1.0, y / alpha + 1)


def selu_output(y: torch.Tensor) -> torch.Tensor:
    """Return the scale above zero, and y + scale times alpha up to it.

    Args:
        y: selu(x).
    """
    return torch.where(y > 0, SELU_SCALE, y + SELU_SCALE * SELU_ALPHA)


def softsign_output(y: torch.Tensor) -> torch.Tensor:
    """Return (1 - |y|)^2.

    Args:
        y: softsign(x).
    """
    return (1 - y.abs()) ** 2


def softplus_output(y: torch.Tensor, beta: float) -> torch.Tensor:
    """Return 1 - exp(-beta y).

    Args:
        y: softplus(x).
        beta: the sharpness.
    """
    return -torch.expm1(-beta * y)


def logsigmoid_output(y: torch.Tensor) -> torch.Tensor:
    """Return 1 - exp(y).

    Args:
        y: logsigmoid(x).
    """
    return -torch.expm1(y)
