"""torch's activations of straight pieces as modules, keeping one bit for backward."""

from __future__ import annotations

from shoestring.activations.fewbit.module import Activation


class ReLU(Activation):
    r""":math:`\max(x, 0)`, with one bit kept of each input.

    See `module.Activation`.

    Args:
        mode: ``code``, ``from_output`` or ``exact``.

    Raises:
        InputError: as `activation.activate` says.
    """

    def __init__(self, *, mode: str = "code") -> None:
        super().__init__("relu", mode=mode)


class LeakyReLU(Activation):
    r""":math:`\max(x, 0) + a \min(x, 0)`, with one bit kept of each input.

    See `module.Activation`.

    Args:
        negative_slope: slope below 0.
        mode: ``code``, ``from_output`` or ``exact``.

    Raises:
        InputError: as `activation.activate` says.
    """

    def __init__(self, negative_slope: float = 0.01, *, mode: str = "code") -> None:
        super().__init__("leaky_relu", parameters={"negative_slope": negative_slope}, mode=mode)


class Threshold(Activation):
    r""":math:`x \text{ above } t, v \text{ else}`, with one bit kept of each input.

    See `module.Activation`.

    Args:
        threshold: up to where x is replaced.
        value: what replaces it.
        mode: ``code``, ``from_output`` or ``exact``.

    Raises:
        InputError: as `activation.activate` says.
    """

    def __init__(self, threshold: float, value: float, *, mode: str = "code") -> None:
        super().__init__(
            "threshold", parameters={"threshold": threshold, "value": value}, mode=mode
        )


class Hardtanh(Activation):
    r""":math:`\min(\max(x, a), b)`, with one bit kept of each input.

    See `module.Activation`.

    Args:
        min_val: lower bound.
        max_val: upper bound.
        mode: ``code``, ``from_output`` or ``exact``.

    Raises:
        InputError: as `activation.activate` says.
    """

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, *, mode: str = "code") -> None:
        super().__init__("hardtanh", parameters={"min_val": min_val, "max_val": max_val}, mode=mode)


class ReLU6(Activation):
    r""":math:`\min(\max(x, 0), 6)`, with one bit kept of each input.

    See `module.Activation`.

    Args:
        mode: ``code``, ``from_output`` or ``exact``.

    Raises:
        InputError: as `activation.activate` says.
    """

    def __init__(self, *, mode: str = "code") -> None:
        super().__init__("relu6", mode=mode)


class Hardsigmoid(Activation):
    r""":math:`\min(\max(x + 3, 0), 6) / 6`, with one bit kept of each input.

    See `module.Activation`.

    Args:
        mode: ``code``, ``from_output`` or ``exact``.

    Raises:
        InputError: as `activation.activate` says.
    """

    def __init__(self, *, mode: str = "code") -> None:
        super().__init__("hardsigmoid", mode=mode)


class Hardshrink(Activation):
    r""":math:`x [|x| > \lambda]`, with one bit kept of each input.

    See `module.Activation`.

    Args:
        lambd: half the width of what becomes 0.
        mode: ``code``, ``from_output`` or ``exact``.

    Raises:
        InputError: as `activation.activate` says.
    """

    def __init__(self, lambd: float = 0.5, *, mode: str = "code") -> None:
        super().__init__("hardshrink", parameters={"lambd": lambd}, mode=mode)


class Softshrink(Activation):
    r""":math:`\operatorname{sign}(x) \max(|x| - \lambda, 0)`, with one bit kept of each input.

    See `module.Activation`.

    Args:
        lambd: half the width of what becomes 0.
        mode: ``code``, ``from_output`` or ``exact``.

    Raises:
        InputError: as `activation.activate` says.
    """

    def __init__(self, lambd: float = 0.5, *, mode: str = "code") -> None:
        super().__init__("softshrink", parameters={"lambd": lambd}, mode=mode)
