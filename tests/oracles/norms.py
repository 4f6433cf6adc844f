"""Gradients of norms by their Jacobians, an output at a time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def layer_norm(g: Array, x: Array, w: Array, b: Array, *, eps: float) -> tuple[Array, ...]:
    """Return the gradients of x, w and b, from that of the output."""
    count = x.shape[1]
    centred = x - x.mean(1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(1, keepdims=True) + eps)
    found = _gradients(g, centred / deviation, deviation, w, np.eye(count) - 1 / count)
    return (*found, g.sum(0))


def rms_norm(g: Array, x: Array, w: Array, *, eps: float) -> tuple[Array, ...]:
    """Return the gradients of x and w, from that of the output."""
    length = np.sqrt((x**2).mean(1, keepdims=True) + eps)
    return _gradients(g, x / length, length, w, np.eye(x.shape[1]))


def _gradients(
    g: Array, normal: Array, length: Array, w: Array, centre: Array
) -> tuple[Array, ...]:
    """Return those of x and w, where ``normal`` is ``centre @ x / length``, row by row."""
    rows = []
    for one, row, size in zip(g, normal, length, strict=True):
        jacobian = (centre - np.outer(row, row) / len(row)) / size
        rows.append(jacobian.T @ (one * w))
    return np.array(rows), (g * normal).sum(0)
