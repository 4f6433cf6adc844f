"""The activations whose derivative is known, and what is known of it."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from shoestring.activations.fewbit import derivatives
from shoestring.activations.fewbit.pieces import DEFAULTS, Pieces, pieces
from shoestring.core.errors import InputError

Elementwise: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
Floats: TypeAlias = npt.NDArray[np.float64]
Parameters: TypeAlias = tuple[tuple[str, float], ...]

_WIDE: Final = (torch.float32, torch.float64)
_SEEN: Final = 20.0


@dataclasses.dataclass(frozen=True)
class Function:
    """An elementwise function with its derivative; called, it is the function itself.

    Args:
        name: as in `torch.nn.functional`, or of a callable.
        parameters: names and values of what it depends on, as torch calls them.
        forward: the function on tensors.
        slope: its derivative on float32 and float64 tensors.
        kinks: where the derivative or its own derivative jumps, ascending; None where that is not
            known.
        output_slope: the derivative from the function's output, where that decides it.
        pieces: of what the function consists, if its derivative has two values only.

    Example:
        >>> float(function("silu")(torch.tensor(0.0)))
        0.0
    """

    name: str
    parameters: Parameters
    forward: Elementwise
    slope: Elementwise
    kinks: tuple[float, ...] | None = ()
    output_slope: Elementwise | None = None
    pieces: Pieces | None = None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the function's values.

        Args:
            x: of any shape.
        """
        return self.forward(x)

    def derivative(self, x: torch.Tensor) -> torch.Tensor:
        """Return the derivative, in the dtype of x.

        Numbers of 16 bits are worked on in float32. Infinities give the limits; NaN gives NaN, or
        the lowest piece's value where the function consists of straight pieces.

        Args:
            x: a tensor of floating-point numbers.

        Example:
            >>> function("tanh").derivative(torch.tensor([0.0, torch.inf])).tolist()
            [1.0, 0.0]
        """
        return self._widely(self.slope, x)

    def derivative_at(self, x: Floats) -> Floats:
        """Return the derivative in float64.

        Args:
            x: an array of any shape.
        """
        return self.slope(torch.from_numpy(np.ascontiguousarray(x))).numpy()

    def from_output(self, y: torch.Tensor) -> torch.Tensor:
        """Return the derivative from the function's output, in its dtype.

        Args:
            y: what the function returned.

        Raises:
            InputError: the output does not decide the derivative.

        Example:
            >>> function("sigmoid").from_output(torch.tensor([0.5])).tolist()
            [0.25]
        """
        if self.output_slope is None:
            raise InputError(
                f"the derivative of {self.name} does not follow from its output.",
                hint="keep a code or the input.",
            )
        return self._widely(self.output_slope, y)

    def _widely(self, rule: Elementwise, x: torch.Tensor) -> torch.Tensor:
        # Where a kink is depends on the dtype, and nothing is rounded there.
        if x.dtype in _WIDE or self.pieces is not None:
            return rule(x)
        return rule(x.float()).to(x.dtype)


def function(name: str, parameters: Mapping[str, float] | None = None) -> Function:
    """Return an activation of torch with its derivative.

    Args:
        name: as in `torch.nn.functional`; ``gelu_tanh`` is ``gelu(approximate="tanh")``.
        parameters: those that are not at torch's defaults, by torch's names: ``alpha`` of elu and
            celu, ``beta`` and ``threshold`` of softplus, ``negative_slope`` of leaky_relu,
            ``threshold`` and ``value`` of threshold, ``min_val`` and ``max_val`` of hardtanh,
            ``lambd`` of hardshrink and softshrink.

    Returns:
        Its record.

    Raises:
        InputError: there is no such activation or parameter, or a parameter is out of range.

    Example:
        >>> function("elu", {"alpha": 0.5}).derivative(torch.tensor([-0.0, 1.0])).tolist()
        [0.5, 1.0]
    """
    if name not in NAMES:
        raise InputError(
            f"there is no activation called {name!r}.",
            hint=f"take one of {', '.join(NAMES)}, or give a callable.",
        )
    known = dict(_PARAMETERS.get(name, {}))
    for key, value in (parameters or {}).items():
        if key not in known:
            raise InputError(
                f"{name} has no parameter {key!r}.",
                hint=f"it has {', '.join(known) or 'none'}.",
            )
        if not math.isfinite(value):
            raise InputError(f"{key}={value} is not finite.", hint="give a finite number.")
        known[key] = float(value)
    return _made(name, tuple(known.items()))


@functools.cache
def _made(name: str, parameters: Parameters) -> Function:
    values = dict(parameters)
    if name in DEFAULTS:
        return _of_pieces(name, values)
    _check(name, values)
    rule = functools.partial(getattr(derivatives, name), **values)
    kinks = _KINKS.get(name, ())
    if name == "softplus":
        kinks = (values["threshold"] / values["beta"],)
    return Function(
        name=name,
        parameters=parameters,
        forward=_forward(name, values),
        slope=rule,
        kinks=kinks,
        output_slope=_output_slope(name, values),
    )


def _output_slope(name: str, values: Mapping[str, float]) -> Elementwise | None:
    rule = getattr(derivatives, f"{name}_output", None)
    if rule is None:
        return None
    if name != "softplus":
        return functools.partial(rule, **values)
    # Just below the threshold torch returns a little more than x, just above x itself: there two
    # inputs have one output, and derivatives exp(-threshold) apart. That may go unseen if small.
    if values["threshold"] < _SEEN:
        return None
    return functools.partial(rule, beta=values["beta"])


def _check(name: str, values: Mapping[str, float]) -> None:
    if name == "celu" and values["alpha"] <= 0:
        raise InputError(f"alpha={values['alpha']} of celu is not positive.", hint="take 1.")
    if name == "elu" and values["alpha"] < 0:
        raise InputError(f"alpha={values['alpha']} of elu is negative.", hint="take 1.")
    if name == "softplus" and values["beta"] <= 0:
        raise InputError(f"beta={values['beta']} of softplus is not positive.", hint="take 1.")


def _forward(name: str, values: Mapping[str, float]) -> Elementwise:
    if name == "gelu_tanh":
        return functools.partial(F.gelu, approximate="tanh")
    # torch deprecates functional.sigmoid and functional.tanh in favour of its own.
    place = torch if name in ("sigmoid", "tanh") else F
    made: Elementwise = functools.partial(getattr(place, name), **values)
    return made


def _of_pieces(name: str, values: dict[str, float]) -> Function:
    deciding = {key: value for key, value in values.items() if key != "value"}
    parts = pieces(name, deciding)
    return Function(
        name=name,
        parameters=tuple(values.items()),
        forward=_forward(name, values),
        slope=parts.derivative,
        kinks=parts.kinks,
        output_slope=_output_of_pieces(name, values, parts),
        pieces=parts,
    )


def _output_of_pieces(name: str, values: Mapping[str, float], parts: Pieces) -> Elementwise | None:
    """Return the derivative from the output of straight pieces, where it follows from that."""
    if name == "leaky_relu":
        return parts.derivative if values["negative_slope"] > 0 else None
    # Hardsigmoid rounds what is next to its upper kink onto it. Where a kink is no number of some
    # dtype, torch's forward and backward may round it differently.
    if name == "hardsigmoid" or not _is_short((*parts.kinks, *values.values())):
        return None
    if name in ("hardshrink", "softshrink"):
        return _not_zero if values["lambd"] > 0 or name == "softshrink" else None
    if name == "threshold" and values["value"] > values["threshold"]:
        return None
    return parts.derivative


def _is_short(numbers: Sequence[float]) -> bool:
    """Whether numbers are the same in every dtype."""
    exact = torch.tensor(numbers, dtype=torch.float64)
    narrow = (exact.to(dtype).to(torch.float64) for dtype in (torch.float16, torch.bfloat16))
    return all(torch.equal(each, exact) for each in narrow)


def _not_zero(y: torch.Tensor) -> torch.Tensor:
    return (y != 0).to(y.dtype)


_KINKS: Final[Mapping[str, tuple[float, ...]]] = {
    "elu": (0.0,),
    "celu": (0.0,),
    "selu": (0.0,),
    "hardswish": (-3.0, 3.0),
    "softsign": (0.0,),
}
_PARAMETERS: Final[Mapping[str, Mapping[str, float]]] = {
    "elu": {"alpha": 1.0},
    "celu": {"alpha": 1.0},
    "softplus": {"beta": 1.0, "threshold": 20.0},
    **DEFAULTS,
    "threshold": {"threshold": 0.0, "value": 0.0},
}
CURVED: Final = (
    "gelu",
    "gelu_tanh",
    "silu",
    "mish",
    "elu",
    "celu",
    "selu",
    "hardswish",
    "sigmoid",
    "tanh",
    "softsign",
    "softplus",
    "logsigmoid",
    "tanhshrink",
)
STRAIGHT: Final = tuple(DEFAULTS)
NAMES: Final = CURVED + STRAIGHT
