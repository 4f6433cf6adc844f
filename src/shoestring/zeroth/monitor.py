"""Whether the slopes of a run stand out from what blurs them."""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Sequence
from typing import Final

WINDOW: Final = 50
"""Steps that are judged together."""

_LOST: Final = 10.0
"""Times the rounding of a float32 loss below which half a difference is lost in it."""


class NoiseWarning(RuntimeWarning):
    """The slopes of a run are below their noise, so its steps lead nowhere."""


class Monitor:
    """Looks at the differences of losses in a window of steps, and warns once in a run.

    It costs no evaluation. The noise of a batch is known where closures return the losses of
    samples; the rounding of the loss always is.
    """

    def __init__(self) -> None:
        self._ratios: list[float] = []
        self._lost: list[bool] = []
        self._warned = False

    def see(self, deltas: Sequence[float], errors: Sequence[float], loss: float) -> None:
        """Take note of a step.

        Args:
            deltas: half the difference of the losses along each direction.
            errors: their standard errors; empty where they are unknown.
            loss: mean of the losses.
        """
        if self._warned or not math.isfinite(loss):
            return
        for delta, error in zip(deltas, errors, strict=False):
            if error > 0:
                self._ratios.append((delta / error) ** 2)
        rounding = 2.0**-24 * abs(loss)
        self._lost.extend(0 < abs(delta) < _LOST * rounding for delta in deltas)
        if len(self._lost) >= WINDOW:
            words = self._words()
            self._ratios, self._lost = [], []
            if words:
                self._warned = True
                warnings.warn(words, NoiseWarning, stacklevel=6)

    def _words(self) -> str | None:
        """Return what is to be said of the last steps."""
        if statistics.fmean(self._lost) > 0.5:
            return (
                "most differences of losses are lost in the rounding of the loss: raise eps, or "
                "return the loss in float64; shoestring.zeroth.suggest measures eps."
            )
        if not self._ratios:
            return None
        # Of noise alone the mean is 1, with this spread.
        mean, spread = statistics.fmean(self._ratios), math.sqrt(2 / len(self._ratios))
        signal = max(mean - 1, 0.0)
        if signal >= 1:
            return None
        lift = math.ceil(1 / max(signal, spread))
        least = "at least " if signal < spread else ""
        return (
            f"the slope is below the noise of a batch (signal to noise {signal:.2g}): batches "
            f"{least}{lift} times as large, or q={lift} directions, would lift it above."
        )
