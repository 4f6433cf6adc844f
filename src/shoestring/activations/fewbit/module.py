"""Any activation as a module, keeping few bits for backward."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from shoestring.activations.fewbit.activation import BITS, Given, Kept, choose
from shoestring.activations.fewbit.quantizer import Quantizer


class Activation(nn.Module):
    r"""Any activation, with few bits kept of its input; see `activation.activate`.

    .. math::

        y = f(x), \qquad dx = \tilde f'(x) \, dy

    With :math:`\tilde f'` a step function of :math:`2^b` levels. It has no parameters and no
    state, and takes the place of any module that computes f.

    Args:
        function: f: a name as in `torch.nn.functional`, ``gelu_tanh``, or an elementwise callable.
        bits: b.
        parameters: of a named function, those that are not at torch's defaults.
        mode: what is kept: ``code``, ``from_output`` or ``exact``.
        rounding: of codes: ``nearest`` or ``stochastic``.
        quantizer: the table; by default the best one for inputs spread evenly.

    Attributes:
        kept: the function, and what is kept of it.

    Raises:
        InputError: as `activation.activate` says.

    Source: Novikov et al., Few-bit backward: quantized gradients of activation functions for memory
        footprint reduction (2022), section 2.

    Example:
        >>> layer = Activation("silu", bits=4)
        >>> x = torch.linspace(-2, 2, 5, requires_grad=True)
        >>> torch.equal(layer(x), nn.functional.silu(x))
        True
    """

    kept: Kept

    def __init__(
        self,
        function: Given,
        bits: int = BITS,
        *,
        parameters: Mapping[str, float] | None = None,
        mode: str = "code",
        rounding: str = "nearest",
        quantizer: Quantizer | None = None,
    ) -> None:
        super().__init__()
        self.kept = choose(
            function, bits, parameters=parameters, mode=mode, rounding=rounding, quantizer=quantizer
        )

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  # torch's name
        """Return the values.

        Args:
            input: of any shape.
        """
        return self.kept(input)

    def extra_repr(self) -> str:
        """Return what is kept, for `print`."""
        function = self.kept.function
        values = "".join(f", {name}={value:g}" for name, value in function.parameters)
        name = function.name if type(self) is Activation else ""
        return f"{name}{values}, mode={self.kept.mode}, bits={self.kept.bits}".removeprefix(", ")
