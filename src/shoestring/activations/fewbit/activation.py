"""Any activation, with a choice of what is kept of it for backward."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

import torch

from shoestring.activations._torch import is_transformed
from shoestring.activations.fewbit import chance
from shoestring.activations.fewbit.branches import BRANCHED
from shoestring.activations.fewbit.callables import as_function
from shoestring.activations.fewbit.functions import Function, Parameters
from shoestring.activations.fewbit.functions import function as named
from shoestring.activations.fewbit.keeping import keep_codes, keep_drawn_codes, keep_output
from shoestring.activations.fewbit.options import DOMAIN
from shoestring.activations.fewbit.quantizer import Quantizer
from shoestring.activations.fewbit.tables import builtin
from shoestring.activations.fewbit.weights import as_weight
from shoestring.core.errors import InputError

Given: TypeAlias = str | Callable[[torch.Tensor], torch.Tensor]

MODES: Final = ("code", "from_output", "exact")
ROUNDINGS: Final = ("nearest", "stochastic")
BITS: Final = 3
_HALF: Final = 1 << 62


@dataclasses.dataclass(frozen=True)
class Kept:
    """An activation, and what is kept of it.

    Called, it returns the activation's values; backward finds the derivative from what was kept.

    Args:
        function: the activation.
        mode: of `MODES`.
        quantizer: codes and levels, where mode is ``code`` and codes are the nearest.
        levels: between which codes are drawn, where they are drawn.
    """

    function: Function
    mode: str
    quantizer: Quantizer | None = None
    levels: tuple[float, ...] = ()

    def __call__(self, x: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """Return the activation's values.

        Under transforms of ``torch.func``, and where no gradient is asked for, nothing is kept but
        what torch keeps itself.

        Args:
            x: floating-point numbers of any shape.
            generator: where the key of codes that are drawn comes from.
        """
        needed = torch.is_grad_enabled() and x.requires_grad
        if not needed or self.mode == "exact" or transformed(x):
            return self.function(x)
        if self.mode == "from_output":
            return keep_output(x, self.function)
        if self.quantizer is None:
            key = torch.randint(_HALF, (), generator=generator, dtype=torch.int64)
            return keep_drawn_codes(x, self.function, self.levels, key)
        return keep_codes(x, self.function, self.quantizer)

    @property
    def bits(self) -> int:
        """What is kept of an element beside its output, in bits."""
        if self.mode == "from_output":
            return int(self.function.name in BRANCHED)
        if self.quantizer is None:
            return max(len(self.levels).bit_length() - 1, 0)
        return self.quantizer.bits


def activate(  # every choice is one
    x: torch.Tensor,
    function: Given,
    bits: int = BITS,
    *,
    parameters: Mapping[str, float] | None = None,
    mode: str = "code",
    rounding: str = "nearest",
    quantizer: Quantizer | None = None,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    r"""Return the values of an activation, and keep few bits of its input for backward.

    .. math::

        y = f(x), \qquad dx = \tilde f'(x) \, dy

    With :math:`\tilde f'` a step function of :math:`2^b` levels. The values are torch's own, and so
    are the gradients of ReLU and all others that consist of straight pieces: one bit is enough.

    Args:
        x: floating-point numbers of any shape and strides.
        function: a name as in `torch.nn.functional`, ``gelu_tanh``, or an elementwise callable.
        bits: b, 1 to 8; without effect on functions of straight pieces, whose codes have one.
        parameters: of a named function, those that are not at torch's defaults.
        mode: what is kept. ``code``: b bits an element. ``from_output``: the output, which costs
            nothing where the next operation keeps it as well, as a linear layer does; and one
            bit an element where the function has a minimum (gelu, silu, mish). Derivatives are
            right to 1e-6 then, to 1e-4 next to the minimum, and to the root of the rounding there
            for 16-bit numbers. ``exact``: what torch keeps.
        rounding: ``nearest``; or ``stochastic``: the code of one of the two levels around f'(x) is
            drawn so that gradients are right in the mean, :math:`E[\tilde f'(x)] = f'(x)`, to
            2^-17 of their distance.
        quantizer: the table; by default the best one for inputs spread evenly.
        generator: where the key of stochastic rounding comes from, as of dropout's mask.

    Code that is compiled breaks here, since a table is looked up: `module.Activation` does not.

    Returns:
        y. Where x is dense in memory, y lies as x does; else row by row.

    Raises:
        InputError: no such function, mode, rounding or width, or an option without effect.

    Source: Novikov et al., Few-bit backward (2022), section 2; for ``from_output`` Andoorveedu et
        al., Tempo (2022), section 3.1.

    Example:
        >>> x = torch.tensor([-3.0, 0.0, 3.0], requires_grad=True)
        >>> activate(x, "gelu", bits=1).sum().backward()
        >>> [round(slope, 6) + 0.0 for slope in x.grad.tolist()]
        [0.0, 0.0, 1.0]
    """
    if rounding != "stochastic" and generator is not None:
        raise InputError(
            "generator= has no effect where nothing is drawn.", hint='take rounding="stochastic".'
        )
    kept = _choose_uncompiled(
        function, bits, parameters=parameters, mode=mode, rounding=rounding, quantizer=quantizer
    )
    return kept(x, generator)


def choose(
    function: Given,
    bits: int = BITS,
    *,
    parameters: Mapping[str, float] | None = None,
    mode: str = "code",
    rounding: str = "nearest",
    quantizer: Quantizer | None = None,
) -> Kept:
    """Return an activation that keeps what is asked for; see `activate`.

    Args:
        function: a name or a callable.
        bits: of a code.
        parameters: of a named function.
        mode: what is kept.
        rounding: of codes.
        quantizer: the table.

    Raises:
        InputError: as `activate` says.
    """
    _check(mode, rounding, bits, quantizer)
    if isinstance(function, str) and quantizer is None:
        key = tuple((parameters or {}).items())
        return _choose_named(function, key, bits, mode, rounding)
    if isinstance(function, str):
        return Kept(named(function, parameters), mode, quantizer)
    if parameters is not None:
        raise InputError(
            "parameters= belong to a named function.", hint="give a callable that has them."
        )
    known = as_function(function)
    if mode == "code" and rounding == "nearest" and quantizer is None:
        raise InputError(
            f"{known.name} has no table.", hint="give quantizer=Quantizer.fit(function)."
        )
    if rounding == "stochastic":
        raise InputError(
            f"codes of {known.name} cannot be drawn.", hint="name one of torch's activations."
        )
    return _checked(Kept(known, mode, quantizer))


# A table is looked up, or computed: nothing that can be captured.
_choose_uncompiled: Callable[..., Kept] = torch.compiler.disable(choose)


@functools.lru_cache(maxsize=1024)
def _choose_named(name: str, parameters: Parameters, bits: int, mode: str, rounding: str) -> Kept:
    known = named(name, dict(parameters))
    if mode != "code":
        return _checked(Kept(known, mode))
    if known.pieces is not None:
        if rounding == "stochastic":
            raise InputError(
                f"nothing of {name} is rounded: one bit is exact.", hint="leave out rounding=."
            )
        return Kept(known, mode, builtin(name, 1, parameters=dict(parameters)))
    if rounding == "stochastic":
        drawn = chance.levels(known, bits, as_weight("uniform"), DOMAIN)
        return Kept(known, mode, levels=drawn)
    return Kept(known, mode, builtin(name, bits, parameters=dict(parameters)))


def _checked(kept: Kept) -> Kept:
    known = kept.function
    decided = known.output_slope is not None or known.name in BRANCHED
    if kept.mode == "from_output" and not decided:
        raise InputError(
            f"the derivative of {known.name} does not follow from its output.",
            hint='take mode="code".',
        )
    return kept


def _check(mode: str, rounding: str, bits: int, quantizer: Quantizer | None) -> None:
    if mode not in MODES:
        raise InputError(f"there is no mode {mode!r}.", hint=f"one of {', '.join(MODES)}.")
    if rounding not in ROUNDINGS:
        raise InputError(
            f"there is no rounding {rounding!r}.", hint=f"one of {', '.join(ROUNDINGS)}."
        )
    if quantizer is not None and bits not in (BITS, quantizer.bits):
        raise InputError(
            f"bits={bits} and a table of {quantizer.bits} bits do not go together.",
            hint="leave out bits=.",
        )
    if mode != "code" and (quantizer is not None or rounding != "nearest"):
        raise InputError(
            f"quantizer= and rounding= have no effect with mode={mode!r}.", hint="leave them out."
        )
    if quantizer is not None and rounding != "nearest":
        raise InputError(
            "a table has no levels to draw between.", hint="leave out quantizer= or rounding=."
        )


def transformed(x: torch.Tensor) -> bool:
    """Return whether a transform of ``torch.func`` is under way, which sees torch's own alone.

    Args:
        x: a tensor that it might have.
    """
    return not torch.compiler.is_compiling() and is_transformed(x)
