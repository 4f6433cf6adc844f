"""torch's curved activations as modules, keeping few bits for backward."""

from __future__ import annotations

from shoestring.activations.fewbit.activation import BITS
from shoestring.activations.fewbit.module import Activation
from shoestring.activations.fewbit.quantizer import Quantizer


class GELU(Activation):
    r""":math:`x \Phi(x)`, with a code kept of each input.

    See `module.Activation`.

    Args:
        bits: of a code.
        approximate: ``none`` for the normal distribution function, ``tanh`` for its approximation.
        mode: ``code``, ``from_output`` or ``exact``.
        rounding: ``nearest`` or ``stochastic``.
        quantizer: the table.

    Raises:
        InputError: as `activation.activate` says.
    """

    def __init__(
        self,
        bits: int = BITS,
        *,
        approximate: str = "none",
        mode: str = "code",
        rounding: str = "nearest",
        quantizer: Quantizer | None = None,
    ) -> None:
        super().__init__(
            "gelu_tanh" if approximate == "tanh" else "gelu",
            bits,
            mode=mode,
            rounding=rounding,
            quantizer=quantizer,
        )


class SiLU(Activation):
    r""":math:`x / (1 + e^{-x})`, with a code kept of each input.

    See `module.Activation`.

    Args:
        bits: of a code.
        mode: ``code``, ``from_output`` or ``exact``.
        rounding: ``nearest`` or ``stochastic``.
        quantizer: the table.

    Raises:
        InputError: as `activation.activate` says.
    """

    def __init__(
        self,
        bits: int = BITS,
        *,
        mode: str = "code",
        rounding: str = "nearest",
        quantizer: Quantizer | None = None,
    ) -> None:
        super().__init__("silu", bits, mode=mode, rounding=rounding, quantizer=quantizer)


class Mish(Activation):
    r""":math:`x \tanh(\log(1 + e^x))`, with a code kept of each input.

    See `module.Activation`.

    Args:
        bits: of a code.
        mode: ``code``, ``from_output`` or ``exact``.
        rounding: ``nearest`` or ``stochastic``.
        quantizer: the table.

    Raises:
        InputError: as `activation.activate` says.
    """

    def __init__(
        self,
        bits: int = BITS,
        *,
        mode: str = "code",
        rounding: str = "nearest",
        quantizer: Quantizer | None = None,
    ) -> None:
        super().__init__("mish", bits, mode=mode, rounding=rounding, quantizer=quantizer)


class ELU(Activation):
    r""":math:`\max(x, 0) + \min(\alpha (e^x - 1), 0)`, with a code kept of each input.

    See `module.Activation`.

    Args:
        bits: of a code.
        alpha: minus the value at minus infinity.
        mode: ``code``, ``from_output`` or ``exact``.
        rounding: ``nearest`` or ``stochastic``.
        quantizer: the table.

    Raises:
        InputError: as `activation.activate` says.
    """

    def __init__(
        self,
        bits: int = BITS,
        *,
        alpha: float = 1.0,
        mode: str = "code",
        rounding: str = "nearest",
        quantizer: Quantizer | None = None,
    ) -> None:
        super().__init__(
            "elu",
            bits,
            parameters={"alpha": alpha},
            mode=mode,
            rounding=rounding,
            quantizer=quantizer,
        )


class CELU(Activation):
    r""":math:`\max(x, 0) + \min(\alpha (e^{x / \alpha} - 1), 0)`, with a code kept of each input.

    See `module.Activation`.

    Args:
        bits: of a code.
        alpha: minus the value at minus infinity.
        mode: ``code``, ``from_output`` or ``exact``.
        rounding: ``nearest`` or ``stochastic``.
        quantizer: the table.

    Raises:
        InputError: as `activation.activate` says.
    """

    def __init__(
        self,
        bits: int = BITS,
        *,
        alpha: float = 1.0,
        mode: str = "code",
        rounding: str = "nearest",
        quantizer: Quantizer | None = None,
    ) -> None:
        super().__init__(
            "celu",
            bits,
            parameters={"alpha": alpha},
            mode=mode,
            rounding=rounding,
            quantizer=quantizer,
        )


class SELU(Activation):
    r""":math:`1.0507 \operatorname{elu}(x, 1.6733)`, with a code kept of each input.

    See `module.Activation`.

    Args:
        bits: of a code.
        mode: ``code``, ``from_output`` or ``exact``.
        rounding: ``nearest`` or ``stochastic``.
        quantizer: the table.

    Raises:
        InputError: as `activation.activate` says.
    """

    def __init__(
        self,
        bits: int = BITS,
        *,
        mode: str = "code",
        rounding: str = "nearest",
        quantizer: Quantizer | None = None,
    ) -> None:
        super().__init__("selu", bits, mode=mode, rounding=rounding, quantizer=quantizer)


class Hardswish(Activation):
    r""":math:`x \min(\max(x + 3, 0), 6) / 6`, with a code kept of each input.

    See `module.Activation`.

    Args:
        bits: of a code.
        mode: ``code``, ``from_output`` or ``exact``.
        rounding: ``nearest`` or ``stochastic``.
        quantizer: the table.

    Raises:
        InputError: as `activation.activate` says.
    """

    def __init__(
        self,
        bits: int = BITS,
        *,
        mode: str = "code",
        rounding: str = "nearest",
        quantizer: Quantizer | None = None,
    ) -> None:
        super().__init__("hardswish", bits, mode=mode, rounding=rounding, quantizer=quantizer)


class Sigmoid(Activation):
    r""":math:`1 / (1 + e^{-x})`, with a code kept of each input.

    See `module.Activation`.

    Args:
        bits: of a code.
        mode: ``code``, ``from_output`` or ``exact``.
        rounding: ``nearest`` or ``stochastic``.
        quantizer: the table.

    Raises:
        InputError: as `activation.activate` says.
    """

    def __init__(
        self,
        bits: int = BITS,
        *,
        mode: str = "code",
        rounding: str = "nearest",
        quantizer: Quantizer | None = None,
    ) -> None:
        super().__init__("sigmoid", bits, mode=mode, rounding=rounding, quantizer=quantizer)


class Tanh(Activation):
    r""":math:`\tanh x`, with a code kept of each input.

    See `module.Activation`.

    Args:
        bits: of a code.
        mode: ``code``, ``from_output`` or ``exact``.
        rounding: ``nearest`` or ``stochastic``.
        quantizer: the table.

    Raises:
        InputError: as `activation.activate` says.
    """

    def __init__(
        self,
        bits: int = BITS,
        *,
        mode: str = "code",
        rounding: str = "nearest",
        quantizer: Quantizer | None = None,
    ) -> None:
        super().__init__("tanh", bits, mode=mode, rounding=rounding, quantizer=quantizer)


class Softsign(Activation):
    r""":math:`x / (1 + |x|)`, with a code kept of each input.

    See `module.Activation`.

    Args:
        bits: of a code.
        mode: ``code``, ``from_output`` or ``exact``.
        rounding: ``nearest`` or ``stochastic``.
        quantizer: the table.

    Raises:
        InputError: as `activation.activate` says.
    """

    def __init__(
        self,
        bits: int = BITS,
        *,
        mode: str = "code",
        rounding: str = "nearest",
        quantizer: Quantizer | None = None,
    ) -> None:
        super().__init__("softsign", bits, mode=mode, rounding=rounding, quantizer=quantizer)


class Softplus(Activation):
    r""":math:`\log(1 + e^{\beta x}) / \beta`, with a code kept of each input.

    See `module.Activation`.

    Args:
        bits: of a code.
        beta: steepness.
        threshold: value of ``beta x`` above which the function is x itself.
        mode: ``code``, ``from_output`` or ``exact``.
        rounding: ``nearest`` or ``stochastic``.
        quantizer: the table.

    Raises:
        InputError: as `activation.activate` says.
    """

    def __init__(
        self,
        bits: int = BITS,
        *,
        beta: float = 1.0,
        threshold: float = 20.0,
        mode: str = "code",
        rounding: str = "nearest",
        quantizer: Quantizer | None = None,
    ) -> None:
        super().__init__(
            "softplus",
            bits,
            parameters={"beta": beta, "threshold": threshold},
            mode=mode,
            rounding=rounding,
            quantizer=quantizer,
        )


class LogSigmoid(Activation):
    r""":math:`-\log(1 + e^{-x})`, with a code kept of each input.

    See `module.Activation`.

    Args:
        bits: of a code.
        mode: ``code``, ``from_output`` or ``exact``.
        rounding: ``nearest`` or ``stochastic``.
        quantizer: the table.

    Raises:
        InputError: as `activation.activate` says.
    """

    def __init__(
        self,
        bits: int = BITS,
        *,
        mode: str = "code",
        rounding: str = "nearest",
        quantizer: Quantizer | None = None,
    ) -> None:
        super().__init__("logsigmoid", bits, mode=mode, rounding=rounding, quantizer=quantizer)


class Tanhshrink(Activation):
    r""":math:`x - \tanh x`, with a code kept of each input.

    See `module.Activation`.

    Args:
        bits: of a code.
        mode: ``code``, ``from_output`` or ``exact``.
        rounding: ``nearest`` or ``stochastic``.
        quantizer: the table.

    Raises:
        InputError: as `activation.activate` says.
    """

    def __init__(
        self,
        bits: int = BITS,
        *,
        mode: str = "code",
        rounding: str = "nearest",
        quantizer: Quantizer | None = None,
    ) -> None:
        super().__init__("tanhshrink", bits, mode=mode, rounding=rounding, quantizer=quantizer)
