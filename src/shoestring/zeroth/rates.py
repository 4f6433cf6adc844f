"""Which learning rate makes the most of a run, from what it begins with; derived in `survey`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, NamedTuple

WASTE: Final = 0.005
"""What share of the loss the noise of batches may add in a run whose gain cannot be foreseen."""

_FARTHER: Final = 2.0
"""How many times as far as foreseen a run may walk, since slopes grow with the curvature."""

_NEAR: Final = 1.2
"""Within which factor a rate is looked for."""


class Start(NamedTuple):
    """What a run begins with.

    Attributes:
        square: of the gradient's length, the least that is likely.
        noise: of a batch's slope.
        curvature: along a direction.
        gain: of the loss, at most.
        steps: of the run.
    """

    square: float
    noise: float
    curvature: float
    gain: float
    steps: int

    def rate(self, curvature: float, growth: float) -> float:
        """Return the learning rate that makes the most of a run.

        Args:
            curvature: that the run meets.
            growth: of the curvature from the start, at most.
        """
        steady = min(1 / (growth * self.curvature), 1 / (min(growth, 2.0) * curvature))
        if not self.noise:
            return steady
        spread = curvature * self.noise**2 / self.steps
        return min(steady, _length(self.square, self.gain, spread) / self.steps)

    def walk(self, rate: float) -> float:
        """Return how far a run takes each weight, its steps being as random as their directions.

        Args:
            rate: of learning.
        """
        sure = rate * self.steps * self.square / self.gain
        shrunk = math.log1p(sure) / sure if sure else 1.0
        return rate * math.sqrt(self.steps * (self.square / (1 + sure) + self.noise**2 * shrunk))


def kept_up(
    start: Start, rate: float, growth: float, at_the_end: Callable[[float], float]
) -> float:
    """Return the largest rate that is still right where its walk ends.

    Args:
        start: of the run.
        rate: the largest that is looked at.
        growth: of the curvature from the start, at most.
        at_the_end: returns the curvature after a walk of some length.
    """

    def right(rate: float) -> float:
        return start.rate(at_the_end(_FARTHER * start.walk(rate)), growth)

    low, high = right(rate), rate
    low = max(low, 1e-3 * rate)
    while high > _NEAR * low:
        middle = math.sqrt(low * high)
        if right(middle) >= middle:
            low = middle
        else:
            high = middle
    return min(low, rate)


def _length(square: float, loss: float, spread: float) -> float:
    """Return the sum of learning rates that makes the most of a run.

    Args:
        square: of the gradient's length.
        loss: what can be gained, at most.
        spread: noise that stays adds half of this for each square of the sum.
    """
    least = math.sqrt(2 * WASTE * loss / spread)
    if not square:
        return least
    share = spread * loss / (2 * square**2)
    low, high = 0.0, 1 / share
    while high - low > 1e-3 * high:
        middle = (low + high) / 2
        if share * (math.log1p(middle) + middle / (1 + middle)) * (1 + middle) ** 2 < 1:
            low = middle
        else:
            high = middle
    return max(least, low * loss / square)
