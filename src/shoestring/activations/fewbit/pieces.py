"""Activations of straight pieces: their derivative has two values, so one bit is exact."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Final

import torch

from shoestring.core.errors import InputError

# torch's hardsigmoid has a sixth in float32, in every dtype.
SIXTH: Final = 0.1666666716337204
_HALVES: Final = (torch.float16, torch.bfloat16)


@dataclasses.dataclass(frozen=True)
class Pieces:
    """A derivative of two values: what it is between which kinks.

    Args:
        kinks: where it changes, ascending.
        above: for each kink, whether the kink itself belongs to the piece above it.
        levels: the two values.
        codes: which of them each piece has; one more than kinks.
        in_own_dtype: whether torch compares with the kink rounded to the tensor's dtype. If not, it
            compares 16-bit numbers in float32.
    """

    kinks: tuple[float, ...]
    above: tuple[bool, ...]
    levels: tuple[float, float]
    codes: tuple[int, ...]
    in_own_dtype: bool = False

    def borders(self, dtype: torch.dtype) -> tuple[float, ...]:
        """Return borders that tell the pieces apart as torch does, at the kinks, too.

        A number on a border belongs to the interval below it. So a kink that belongs above gives
        way to the next smaller number of the dtype.

        Args:
            dtype: of the tensor that is compared with them; they are numbers of it.

        Example:
            >>> pieces("hardtanh").borders(torch.bfloat16)
            (-1.0, 0.99609375)
        """
        compared = torch.float32 if dtype in _HALVES and not self.in_own_dtype else dtype
        return tuple(
            _below(torch.tensor(kink, dtype=torch.float64).to(compared), dtype, strictly=strictly)
            for kink, strictly in zip(self.kinks, self.above, strict=True)
        )

    def derivative(self, x: torch.Tensor) -> torch.Tensor:
        """Return the derivative at x, as torch has it, in its dtype.

        Args:
            x: a tensor of floating-point numbers; NaN counts as the lowest piece.
        """
        found = torch.zeros(x.shape, dtype=torch.int64, device=x.device)
        for border in self.borders(x.dtype):
            found += x > border
        values = torch.tensor([self.levels[c] for c in self.codes], dtype=x.dtype, device=x.device)
        return values[found]


def _below(bound: torch.Tensor, dtype: torch.dtype, *, strictly: bool) -> float:
    """Return the largest number of a dtype up to, or strictly below, a bound."""
    near = bound.to(dtype)
    exact = bound.to(torch.float64)
    if near.to(torch.float64) > exact or (strictly and near.to(torch.float64) == exact):
        near = torch.nextafter(near, torch.tensor(-torch.inf, dtype=dtype))
    return float(near)


def rounded_down(borders: tuple[float, ...], dtype: torch.dtype) -> tuple[float, ...]:
    """Return, for each border, the largest number of a dtype that is not above it.

    Every number of the dtype is on the same side of both.

    Args:
        borders: any finite numbers.
        dtype: a floating-point dtype.

    Example:
        >>> rounded_down((0.1, 0.25), torch.bfloat16)
        (0.099609375, 0.25)
    """
    return tuple(
        _below(torch.tensor(b, dtype=torch.float64), dtype, strictly=False) for b in borders
    )


def _relu() -> Pieces:
    return Pieces((0.0,), (False,), (0.0, 1.0), (0, 1))


def _leaky_relu(negative_slope: float) -> Pieces:
    return Pieces((0.0,), (False,), (negative_slope, 1.0), (0, 1))


def _threshold(threshold: float) -> Pieces:
    return Pieces((threshold,), (False,), (0.0, 1.0), (0, 1))


def _band(min_val: float, max_val: float, height: float = 1.0) -> Pieces:
    """Constant outside, kinks included."""
    if not min_val < max_val:
        raise InputError(
            f"min_val={min_val} is not below max_val={max_val}.", hint="give the lower end first."
        )
    return Pieces((min_val, max_val), (False, True), (0.0, height), (0, 1, 0))


def _shrink(lambd: float) -> Pieces:
    """Zero inside, kinks included."""
    if not lambd >= 0:
        raise InputError(f"lambd={lambd} is negative.", hint="take a width from 0 up.")
    return Pieces((-lambd, lambd), (True, False), (0.0, 1.0), (1, 0, 1), in_own_dtype=True)


_MAKERS: Final[Mapping[str, Callable[..., Pieces]]] = {
    "relu": _relu,
    "leaky_relu": _leaky_relu,
    "threshold": _threshold,
    "hardtanh": _band,
    "relu6": functools.partial(_band, 0.0, 6.0),
    "hardsigmoid": functools.partial(_band, -3.0, 3.0, SIXTH),
    "hardshrink": _shrink,
    "softshrink": _shrink,
}
# What torch calls the parameters that decide the derivative, and its defaults. The value that
# threshold writes has no part in it, and is the function's business.
DEFAULTS: Final[Mapping[str, Mapping[str, float]]] = {
    "relu": {},
    "leaky_relu": {"negative_slope": 0.01},
    "threshold": {"threshold": 0.0},
    "hardtanh": {"min_val": -1.0, "max_val": 1.0},
    "relu6": {},
    "hardsigmoid": {},
    "hardshrink": {"lambd": 0.5},
    "softshrink": {"lambd": 0.5},
}


def pieces(name: str, parameters: Mapping[str, float] | None = None) -> Pieces:
    """Return the pieces of one of torch's piecewise-linear activations.

    Args:
        name: as in `torch.nn.functional`.
        parameters: those that are not at torch's defaults, by torch's names.

    Raises:
        InputError: it is none of them, or a parameter is out of range.

    Example:
        >>> pieces("relu6").kinks
        (0.0, 6.0)
    """
    if name not in _MAKERS:
        raise InputError(
            f"{name!r} does not consist of straight pieces.", hint=f"take one of {sorted(_MAKERS)}."
        )
    return _MAKERS[name](*{**DEFAULTS[name], **(parameters or {})}.values())
