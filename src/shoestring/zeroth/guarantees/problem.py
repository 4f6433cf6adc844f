"""The constants of a problem that a guarantee is made of, checked once."""

from __future__ import annotations

import dataclasses
import math
from typing import Final, TypeVar

from shoestring.core.errors import InputError

N = TypeVar("N", int, float)
DIRECTIONS: Final = ("rademacher", "gaussian")
_LETTERS: Final = {
    "smooth": "L",
    "smooth_inf": "L_inf",
    "noise": "Delta",
    "gap": "delta0",
    "steps": "T",
    "pl": "mu",
}
"""What the user calls a field, where he does not call it by its name."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What is known of a function, its oracle and the run.

    Attributes:
        method: name of the method.
        d: number of parameters.
        smooth: Lipschitz constant L of the gradient in the l2 norm; None where it is not known.
        smooth_inf: the same from the l-infinity to the l1 norm; None where it is not known.
        sigma: root of the total variance of a sample's gradient.
        noise: of the oracle: how far a value may be off.
        gap: the first value over the least.
        steps: number of iterations.
        pl: constant of Polyak and Lojasiewicz; None where it is not assumed.
        directions: family of directions.
        tau: radius of the differences; None for the best.
        shape: rows and columns, for what is orthogonalised.
        workers: that share the function.
        coordinates: partial derivatives in a message.
        eta0: first guess of the smoothness.
        d0: first guess of the gap, from below.

    Raises:
        InputError: a number is out of its range.
    """

    method: str
    d: int
    smooth: float | None = None
    smooth_inf: float | None = None
    sigma: float = 0.0
    noise: float = 0.0
    gap: float | None = None
    steps: int | None = None
    pl: float | None = None
    directions: str | None = None
    tau: float | None = None
    shape: tuple[int, int] | None = None
    workers: int | None = None
    coordinates: int | None = None
    eta0: float | None = None
    d0: float | None = None

    def __post_init__(self) -> None:
        for value, name in ((self.d, "d"), (self.steps, "T")):
            whole(value, name)
        for value, name in ((self.workers, "workers"), (self.coordinates, "coordinates")):
            whole(value, name)
        for side in self.shape or ():
            whole(side, "shape")
        positive(self.sigma, "sigma", zero=True)
        positive(self.noise, "Delta", zero=True)
        for name in ("smooth", "smooth_inf", "gap", "pl", "tau", "eta0", "d0"):
            positive(getattr(self, name), _LETTERS.get(name, name))
        if self.directions not in (None, *DIRECTIONS):
            raise InputError(
                f"nothing is proved of {self.directions!r}.",
                hint=f"take one of {', '.join(DIRECTIONS)}.",
            )

    def given(self) -> dict[str, object]:
        """Return what is known beside the method and d, by the names that the user gives."""
        found: dict[str, object] = {}
        for field in dataclasses.fields(self)[2:]:
            value = getattr(self, field.name)
            if value != field.default:
                found[_LETTERS.get(field.name, field.name)] = value
        return found

    @property
    def L(self) -> float:  # noqa: N802  # as every paper calls it
        """Lipschitz constant of the gradient in the l2 norm."""
        return _given(self.smooth, "L", self.method)

    @property
    def L_inf(self) -> float:  # noqa: N802
        """The constant from l-infinity to l1, at most ``d L`` where it is not given."""
        return self.d * self.L if self.smooth_inf is None else self.smooth_inf

    @property
    def delta0(self) -> float:
        """The first value over the least."""
        return _given(self.gap, "delta0", self.method)

    @property
    def T(self) -> int:  # noqa: N802
        """Number of iterations."""
        return _given(self.steps, "T", self.method)


def _given(value: N | None, name: str, method: str) -> N:
    if value is None:
        raise InputError(f"{method} needs {name}.", hint=f"give {name}=.")
    return value


def positive(value: float | None, name: str, *, zero: bool = False) -> None:
    """Refuse what is no positive number.

    Args:
        value: the number; None is let through.
        name: what the user calls it.
        zero: whether zero will do.

    Raises:
        InputError: it is not finite, or too small.
    """
    if value is None or (math.isfinite(value) and (value > 0 or (zero and value == 0))):
        return
    wanted = "zero or a positive number" if zero else "a positive number"
    raise InputError(f"{name}={value} is out of range.", hint=f"give {wanted}.")


def whole(value: int | None, name: str) -> None:
    """Refuse what is no count.

    Args:
        value: the number; None is let through.
        name: what the user calls it.

    Raises:
        InputError: it is no whole number of 1 or more.
    """
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return
    raise InputError(f"{name}={value} is no count.", hint="give a whole number, 1 or more.")
