"""Sketches as whole matrices, and the variance of a product through one, by definition."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def variance(kind: str, g: Array, x: Array, m: int, padded: int) -> float:
    """Return the mean of ``|(S g)^T (S x) - g^T x|^2`` by the formula of each sketch."""
    exact = float(((g.T @ x) ** 2).sum())
    gg, xx = (g**2).sum(1), (x**2).sum(1)
    count = len(x)
    signs = float(xx.sum() * gg.sum() + exact - 2 * (xx * gg).sum())
    match kind:
        case "rademacher":
            return signs / m
        case "gaussian":
            return float(xx.sum() * gg.sum() + exact) / m
        case "srht":
            return (padded - m) / (padded - 1) * signs / m
        case "rows":
            return (count - m) / (count - 1) * float(count * (xx * gg).sum() - exact) / m
        case "importance":
            lengths = np.sqrt(xx)
            return float(lengths.sum() * (lengths * gg).sum() - exact) / m
    raise AssertionError(kind)


def counted(kind: str, g: Array, x: Array, m: int) -> tuple[Array, float]:
    """Return mean and variance over all sketches that there are, each as often as it is drawn."""
    exact = g.T @ x
    mean, spread = np.zeros_like(exact), 0.0
    for chance, sketch in _all(kind, x, m):
        product = (sketch @ g).T @ (sketch @ x)
        mean += chance * product
        spread += chance * float(((product - exact) ** 2).sum())
    return mean, spread


def _all(kind: str, x: Array, m: int) -> Iterator[tuple[float, Array]]:
    count = len(x)
    eye = np.eye(count)
    if kind == "rademacher":
        tables = list(itertools.product((-1.0, 1.0), repeat=m * count))
        for table in tables:
            yield 1 / len(tables), np.array(table).reshape(m, count) / m**0.5
    elif kind == "srht":
        hadamard = sylvester(count)
        chosen = list(itertools.combinations(range(count), m))
        for turn in itertools.product((-1.0, 1.0), repeat=count):
            for rows in chosen:
                yield 2.0**-count / len(chosen), (hadamard * np.array(turn))[list(rows)] / m**0.5
    elif kind == "rows":
        chosen = list(itertools.combinations(range(count), m))
        for rows in chosen:
            yield 1 / len(chosen), eye[list(rows)] * (count / m) ** 0.5
    elif kind == "importance":
        lengths = np.linalg.norm(x, axis=1)
        share = lengths / lengths.sum()
        for drawn in itertools.product(np.flatnonzero(share), repeat=m):
            rows = np.array(drawn)
            yield float(share[rows].prod()), eye[rows] / np.sqrt(m * share[rows])[:, None]


def sylvester(order: int) -> Array:
    """Return the Hadamard matrix of a power of two."""
    found = np.ones((1, 1))
    while len(found) < order:
        found = np.kron([[1, 1], [1, -1]], found)
    return found
