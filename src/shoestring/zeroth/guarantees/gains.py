"""Steps and radii that shrink as Spall's do."""

from __future__ import annotations

import dataclasses
import math
from typing import Final

ALPHA: Final = 0.602
GAMMA: Final = 0.101
SHARE: Final = 0.1
"""The offset of the steps, as a share of the run."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Gains:
    r"""The schedule of SPSA.

    .. math::

        a_k = \frac{a}{(k + 1 + A)^{0.602}}, \qquad c_k = \frac{c}{(k + 1)^{0.101}}

    Attributes:
        a: of the steps.
        A: what keeps the first steps small.
        c: of the radii.

    Example:
        >>> Gains(a=2.0, A=0.0, c=0.1).step(0)
        2.0

    Source: Spall, Implementation of the simultaneous perturbation algorithm for stochastic
    optimization (1998), section III.
    """

    a: float
    A: float
    c: float

    def step(self, k: int) -> float:
        """Return the step of iteration k, counted from 0."""
        return self.a * math.pow(k + 1 + self.A, -ALPHA)

    def tau(self, k: int) -> float:
        """Return the radius of iteration k, counted from 0."""
        return self.c * math.pow(k + 1, -GAMMA)
