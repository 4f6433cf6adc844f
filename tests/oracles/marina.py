"""MARINA on finite differences, as its definition says it: in float64, with everything kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float64]
Loss = Callable[[Vector], float]


def difference(loss: Loss, x: Vector, j: int, eps: float) -> float:
    """Return the slope of a loss along one coordinate."""
    e = np.zeros(len(x))
    e[j] = eps
    return (loss(x + e) - loss(x - e)) / (2 * eps)


def gradient(loss: Loss, x: Vector, eps: float) -> Vector:
    """Return the slopes along all of them."""
    return np.array([difference(loss, x, j, eps) for j in range(len(x))])


def marina(
    losses: Sequence[Loss],
    x: Vector,
    rounds: Sequence[Sequence[Sequence[int]] | None],
    *,
    lr: float,
    eps: float,
) -> Vector:
    """Return where workers with these losses end.

    Args:
        losses: of the workers.
        x: where they begin.
        rounds: None where all send whole gradients; else the coordinates of each worker.
        lr: learning rate.
        eps: of the differences.
    """
    n, d = len(losses), len(x)
    g, before = np.zeros(d), x
    for sets in rounds:
        if sets is None:
            g = sum(gradient(loss, x, eps) for loss in losses) / n
        else:
            for loss, chosen in zip(losses, sets, strict=True):
                for j in chosen:
                    change = difference(loss, x, j, eps) - difference(loss, before, j, eps)
                    g[j] += d / len(chosen) * change / n
        before, x = x, x - lr * g
    return x
