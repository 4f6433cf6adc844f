"""torch's activations under their own names, keeping few bits for backward.

What the options mean, and further ones (a table of one's own, a generator), is at
`activation.activate`, which all of these call.
"""

from __future__ import annotations

import torch

from shoestring.activations.fewbit.activation import BITS, activate
from shoestring.core.errors import InputError


def gelu(
    x: torch.Tensor,
    bits: int = BITS,
    *,
    approximate: str = "none",
    mode: str = "code",
    rounding: str = "nearest",
) -> torch.Tensor:
    r"""Return :math:`x \Phi(x)`, keeping few bits of x.

    Args:
        x: of any shape.
        bits: of a code.
        approximate: ``none`` for the normal distribution function, ``tanh`` for its approximation.
        mode: ``code``, ``from_output`` or ``exact``.
        rounding: ``nearest`` or ``stochastic``.

    Raises:
        InputError: as `activation.activate` says.
    """
    if approximate not in ("none", "tanh"):
        raise InputError(f"gelu has no form {approximate!r}.", hint="take none or tanh.")
    name = "gelu_tanh" if approximate == "tanh" else "gelu"
    return activate(x, name, bits, mode=mode, rounding=rounding)


def silu(
    x: torch.Tensor, bits: int = BITS, *, mode: str = "code", rounding: str = "nearest"
) -> torch.Tensor:
    r"""Return :math:`x / (1 + e^{-x})`, keeping few bits of x.

    Args:
        x: of any shape.
        bits: of a code.
        mode: ``code``, ``from_output`` or ``exact``.
        rounding: ``nearest`` or ``stochastic``.

    Raises:
        InputError: as `activation.activate` says.
    """
    return activate(x, "silu", bits, mode=mode, rounding=rounding)


def mish(
    x: torch.Tensor, bits: int = BITS, *, mode: str = "code", rounding: str = "nearest"
) -> torch.Tensor:
    r"""Return :math:`x \tanh(\log(1 + e^x))`, keeping few bits of x.

    Args:
        x: of any shape.
        bits: of a code.
        mode: ``code``, ``from_output`` or ``exact``.
        rounding: ``nearest`` or ``stochastic``.

    Raises:
        InputError: as `activation.activate` says.
    """
    return activate(x, "mish", bits, mode=mode, rounding=rounding)


def elu(
    x: torch.Tensor,
    bits: int = BITS,
    *,
    alpha: float = 1.0,
    mode: str = "code",
    rounding: str = "nearest",
) -> torch.Tensor:
    r"""Return :math:`\max(x, 0) + \min(\alpha (e^x - 1), 0)`, keeping few bits of x.

    Args:
        x: of any shape.
        bits: of a code.
        alpha: minus the value at minus infinity.
        mode: ``code``, ``from_output`` or ``exact``.
        rounding: ``nearest`` or ``stochastic``.

    Raises:
        InputError: as `activation.activate` says.
    """
    return activate(x, "elu", bits, parameters={"alpha": alpha}, mode=mode, rounding=rounding)


def celu(
    x: torch.Tensor,
    bits: int = BITS,
    *,
    alpha: float = 1.0,
    mode: str = "code",
    rounding: str = "nearest",
) -> torch.Tensor:
    r"""Return :math:`\max(x, 0) + \min(\alpha (e^{x / \alpha} - 1), 0)`, keeping few bits of x.

    Args:
        x: of any shape.
        bits: of a code.
        alpha: minus the value at minus infinity.
        mode: ``code``, ``from_output`` or ``exact``.
        rounding: ``nearest`` or ``stochastic``.

    Raises:
        InputError: as `activation.activate` says.
    """
    return activate(x, "celu", bits, parameters={"alpha": alpha}, mode=mode, rounding=rounding)


def selu(
    x: torch.Tensor, bits: int = BITS, *, mode: str = "code", rounding: str = "nearest"
) -> torch.Tensor:
    r"""Return :math:`1.0507 \operatorname{elu}(x, 1.6733)`, keeping few bits of x.

    Args:
        x: of any shape.
        bits: of a code.
        mode: ``code``, ``from_output`` or ``exact``.
        rounding: ``nearest`` or ``stochastic``.

    Raises:
        InputError: as `activation.activate` says.
    """
    return activate(x, "selu", bits, mode=mode, rounding=rounding)


def hardswish(
    x: torch.Tensor, bits: int = BITS, *, mode: str = "code", rounding: str = "nearest"
) -> torch.Tensor:
    r"""Return :math:`x \min(\max(x + 3, 0), 6) / 6`, keeping few bits of x.

    Args:
        x: of any shape.
        bits: of a code.
        mode: ``code``, ``from_output`` or ``exact``.
        rounding: ``nearest`` or ``stochastic``.

    Raises:
        InputError: as `activation.activate` says.
    """
    return activate(x, "hardswish", bits, mode=mode, rounding=rounding)


def sigmoid(
    x: torch.Tensor, bits: int = BITS, *, mode: str = "code", rounding: str = "nearest"
) -> torch.Tensor:
    r"""Return :math:`1 / (1 + e^{-x})`, keeping few bits of x.

    Args:
        x: of any shape.
        bits: of a code.
        mode: ``code``, ``from_output`` or ``exact``.
        rounding: ``nearest`` or ``stochastic``.

    Raises:
        InputError: as `activation.activate` says.
    """
    return activate(x, "sigmoid", bits, mode=mode, rounding=rounding)


def tanh(
    x: torch.Tensor, bits: int = BITS, *, mode: str = "code", rounding: str = "nearest"
) -> torch.Tensor:
    r"""Return :math:`\tanh x`, keeping few bits of x.

    Args:
        x: of any shape.
        bits: of a code.
        mode: ``code``, ``from_output`` or ``exact``.
        rounding: ``nearest`` or ``stochastic``.

    Raises:
        InputError: as `activation.activate` says.
    """
    return activate(x, "tanh", bits, mode=mode, rounding=rounding)


def softsign(
    x: torch.Tensor, bits: int = BITS, *, mode: str = "code", rounding: str = "nearest"
) -> torch.Tensor:
    r"""Return :math:`x / (1 + |x|)`, keeping few bits of x.

    Args:
        x: of any shape.
        bits: of a code.
        mode: ``code``, ``from_output`` or ``exact``.
        rounding: ``nearest`` or ``stochastic``.

    Raises:
        InputError: as `activation.activate` says.
    """
    return activate(x, "softsign", bits, mode=mode, rounding=rounding)


def softplus(
    x: torch.Tensor,
    bits: int = BITS,
    *,
    beta: float = 1.0,
    threshold: float = 20.0,
    mode: str = "code",
    rounding: str = "nearest",
) -> torch.Tensor:
    r"""Return :math:`\log(1 + e^{\beta x}) / \beta`, keeping few bits of x.

    Args:
        x: of any shape.
        bits: of a code.
        beta: steepness.
        threshold: value of ``beta x`` above which the function is x itself.
        mode: ``code``, ``from_output`` or ``exact``.
        rounding: ``nearest`` or ``stochastic``.

    Raises:
        InputError: as `activation.activate` says.
    """
    return activate(
        x,
        "softplus",
        bits,
        parameters={"beta": beta, "threshold": threshold},
        mode=mode,
        rounding=rounding,
    )


def logsigmoid(
    x: torch.Tensor, bits: int = BITS, *, mode: str = "code", rounding: str = "nearest"
) -> torch.Tensor:
    r"""Return :math:`-\log(1 + e^{-x})`, keeping few bits of x.

    Args:
        x: of any shape.
        bits: of a code.
        mode: ``code``, ``from_output`` or ``exact``.
        rounding: ``nearest`` or ``stochastic``.

    Raises:
        InputError: as `activation.activate` says.
    """
    return activate(x, "logsigmoid", bits, mode=mode, rounding=rounding)


def tanhshrink(
    x: torch.Tensor, bits: int = BITS, *, mode: str = "code", rounding: str = "nearest"
) -> torch.Tensor:
    r"""Return :math:`x - \tanh x`, keeping few bits of x.

    Args:
        x: of any shape.
        bits: of a code.
        mode: ``code``, ``from_output`` or ``exact``.
        rounding: ``nearest`` or ``stochastic``.

    Raises:
        InputError: as `activation.activate` says.
    """
    return activate(x, "tanhshrink", bits, mode=mode, rounding=rounding)


def relu(x: torch.Tensor, *, mode: str = "code") -> torch.Tensor:
    r"""Return :math:`\max(x, 0)`, keeping one bit of x.

    Args:
        x: of any shape.
        mode: ``code``, ``from_output`` or ``exact``.

    Raises:
        InputError: as `activation.activate` says.
    """
    return activate(x, "relu", mode=mode)


def leaky_relu(
    x: torch.Tensor, negative_slope: float = 0.01, *, mode: str = "code"
) -> torch.Tensor:
    r"""Return :math:`\max(x, 0) + a \min(x, 0)`, keeping one bit of x.

    Args:
        x: of any shape.
        negative_slope: slope below 0.
        mode: ``code``, ``from_output`` or ``exact``.

    Raises:
        InputError: as `activation.activate` says.
    """
    return activate(x, "leaky_relu", parameters={"negative_slope": negative_slope}, mode=mode)


def threshold(
    x: torch.Tensor, threshold: float, value: float, *, mode: str = "code"
) -> torch.Tensor:
    r"""Return :math:`x \text{ above } t, v \text{ else}`, keeping one bit of x.

    Args:
        x: of any shape.
        threshold: up to where x is replaced.
        value: what replaces it.
        mode: ``code``, ``from_output`` or ``exact``.

    Raises:
        InputError: as `activation.activate` says.
    """
    return activate(x, "threshold", parameters={"threshold": threshold, "value": value}, mode=mode)


def hardtanh(
    x: torch.Tensor, min_val: float = -1.0, max_val: float = 1.0, *, mode: str = "code"
) -> torch.Tensor:
    r"""Return :math:`\min(\max(x, a), b)`, keeping one bit of x.

    Args:
        x: of any shape.
        min_val: lower bound.
        max_val: upper bound.
        mode: ``code``, ``from_output`` or ``exact``.

    Raises:
        InputError: as `activation.activate` says.
    """
    return activate(x, "hardtanh", parameters={"min_val": min_val, "max_val": max_val}, mode=mode)


def relu6(x: torch.Tensor, *, mode: str = "code") -> torch.Tensor:
    r"""Return :math:`\min(\max(x, 0), 6)`, keeping one bit of x.

    Args:
        x: of any shape.
        mode: ``code``, ``from_output`` or ``exact``.

    Raises:
        InputError: as `activation.activate` says.
    """
    return activate(x, "relu6", mode=mode)


def hardsigmoid(x: torch.Tensor, *, mode: str = "code") -> torch.Tensor:
    r"""Return :math:`\min(\max(x + 3, 0), 6) / 6`, keeping one bit of x.

    Args:
        x: of any shape.
        mode: ``code``, ``from_output`` or ``exact``.

    Raises:
        InputError: as `activation.activate` says.
    """
    return activate(x, "hardsigmoid", mode=mode)


def hardshrink(x: torch.Tensor, lambd: float = 0.5, *, mode: str = "code") -> torch.Tensor:
    r"""Return :math:`x [|x| > \lambda]`, keeping one bit of x.

    Args:
        x: of any shape.
        lambd: half the width of what becomes 0.
        mode: ``code``, ``from_output`` or ``exact``.

    Raises:
        InputError: as `activation.activate` says.
    """
    return activate(x, "hardshrink", parameters={"lambd": lambd}, mode=mode)


def softshrink(x: torch.Tensor, lambd: float = 0.5, *, mode: str = "code") -> torch.Tensor:
    r"""Return :math:`\operatorname{sign}(x) \max(|x| - \lambda, 0)`, keeping one bit of x.

    Args:
        x: of any shape.
        lambd: half the width of what becomes 0.
        mode: ``code``, ``from_output`` or ``exact``.

    Raises:
        InputError: as `activation.activate` says.
    """
    return activate(x, "softshrink", parameters={"lambd": lambd}, mode=mode)
