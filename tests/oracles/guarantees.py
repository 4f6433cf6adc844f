"""Methods as their papers write them, run many times at once on functions of known constants.

An array of points is [runs, d]. A sample adds a random slope to a function, which leaves L as it
is; the worst oracle lowers every slope that it is asked for, by all that its noise allows.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Function:
    """A function, its gradient and its constants; its least value is 0."""

    value: Callable[[Array], Array]
    gradient: Callable[[Array], Array]
    L: float
    L_inf: float


def quadratic(curvatures: Array) -> Function:
    """``sum h_i x_i^2 / 2``."""
    h = np.asarray(curvatures, dtype=np.float64)
    return Function(
        lambda x: (h * x**2).sum(-1) / 2, lambda x: h * x, float(h.max()), float(h.sum())
    )


def waves(d: int, smooth: float, seed: int) -> Function:
    """``smooth sum (1 - cos y_i)`` with y a rotation of x: smooth, bounded, not convex."""
    turn = np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))[0]
    return Function(
        lambda x: smooth * (1 - np.cos(x @ turn)).sum(-1),
        lambda x: smooth * np.sin(x @ turn) @ turn.T,
        smooth,
        d * smooth,
    )


def slopes(d: int, smooth: float, steepness: float) -> Function:
    """A slope in each coordinate, rounded off at the least: ``|g| = steepness`` but there."""
    edge = steepness / smooth
    return Function(
        lambda x: np.where(
            np.abs(x) < edge, smooth * x**2 / 2, steepness * (np.abs(x) - edge / 2)
        ).sum(-1),
        lambda x: np.clip(smooth * x, -steepness, steepness),
        smooth,
        d * smooth,
    )


def long_slope(d: int, smooth: float, delta0: float, way: float) -> tuple[Function, float]:
    """A slope that ends a given way from x0, ``delta0`` below it, and every coordinate of x0."""
    gap = delta0 / d
    steepness = smooth * (math.sqrt(way**2 + 2 * gap / smooth) - way)
    return slopes(d, smooth, steepness), way + steepness / smooth


@dataclasses.dataclass(frozen=True)
class Noise:
    """What is wrong with the values."""

    sigma: float = 0.0
    Delta: float = 0.0


def slope_along(
    f: Function, x: Array, z: Array, tau: float, noise: Noise, rng: np.random.Generator
) -> Array:
    """A two-sided difference along z, [runs], by the worst oracle."""
    d = x.shape[-1]
    if tau == 0:
        there = (f.gradient(x) * z).sum(-1)
    else:
        there = (f.value(x + tau * z) - f.value(x - tau * z)) / (2 * tau)
    if noise.sigma:
        there = there + (rng.standard_normal(x.shape) * noise.sigma / math.sqrt(d) * z).sum(-1)
    if noise.Delta:
        there = there - np.sign((f.gradient(x) * z).sum(-1)) * noise.Delta / tau
    return there


@dataclasses.dataclass(frozen=True)
class Run:
    """What was measured: norms of the gradient, [steps, runs], and the last points."""

    norms: Array
    x: Array


def draws(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    if name == "gaussian":
        return rng.standard_normal(shape)
    return rng.integers(0, 2, shape) * 2.0 - 1.0


def sgd(
    f: Function,
    x: Array,
    steps: int,
    step: float | Callable[[int], float],
    tau: float | Callable[[int], float] = 0.0,
    *,
    directions: str = "rademacher",
    noise: Noise = Noise(),
    own_noise: float = 0.0,
    seed: int = 0,
) -> Run:
    """Squared l2 norms; ``own_noise`` is the deviation of a noise that each value has alone."""
    rng = np.random.default_rng(seed)
    norms = np.empty((steps, len(x)))
    for k in range(steps):
        a = step(k) if callable(step) else step
        c = tau(k) if callable(tau) else tau
        norms[k] = (f.gradient(x) ** 2).sum(-1)
        z = draws(directions, x.shape, rng)
        rho = slope_along(f, x, z, c, noise, rng)
        if own_noise:
            rho = rho + rng.standard_normal(len(x)) * own_noise * math.sqrt(2) / (2 * c)
        x = x - a * rho[:, None] * z
    return Run(norms, x)


def jaguar(
    f: Function,
    x: Array,
    steps: int,
    step: float,
    beta: float,
    tau: float = 0.0,
    *,
    shape: tuple[int, int] | None = None,
    noise: Noise = Noise(),
    seed: int = 0,
) -> Run:
    """Algorithm 1: l1 norms; with a shape algorithm 2: nuclear norms."""
    rng = np.random.default_rng(seed)
    runs, d = x.shape
    every, m, norms = np.arange(runs), np.zeros_like(x), np.empty((steps, runs))
    for k in range(steps):
        g = f.gradient(x)
        if shape is None:
            norms[k] = np.abs(g).sum(-1)
        else:
            norms[k] = np.linalg.svd(g.reshape(runs, *shape), compute_uv=False).sum(-1)
        i = rng.integers(0, d, runs)
        e = np.zeros_like(x)
        e[every, i] = 1.0
        found = slope_along(f, x, e, tau, noise, rng)
        m[every, i] = beta * m[every, i] + (1 - beta) * found
        x = x - step * (np.sign(m) if shape is None else polar(m, shape))
    return Run(norms, x)


def polar(m: Array, shape: tuple[int, int]) -> Array:
    """``U V^T`` of each matrix; what has no length has no direction either."""
    u, s, v = np.linalg.svd(m.reshape(-1, *shape), full_matrices=False)
    kept = s > 1e-12 * np.maximum(s[:, :1], 1e-300)
    return ((u * kept[:, None, :]) @ v).reshape(m.shape)


def coordinate_momentum(
    drift: Array, p: float, steps: int, runs: int, *, sigma: float = 0.0, seed: int = 0
) -> Array:
    """Errors [runs, d] of JAGUAR's momentum, on a gradient that moves by drift in each step."""
    rng = np.random.default_rng(seed)
    d = len(drift)
    every, m, g = np.arange(runs), np.zeros((runs, d)), np.zeros(d)
    for _ in range(steps):
        g = g + drift
        i = rng.integers(0, d, runs)
        seen = g[i] + rng.standard_normal(runs) * sigma / math.sqrt(d)
        m[every, i] = (1 - p) * m[every, i] + p * seen
    return m - g


def sign_sgd(
    f: Function, x: Array, steps: int, step: float, *, two_point: float = 0.0, seed: int = 0
) -> Run:
    """l1 norms; each partial derivative has a noise of plus or minus ``two_point``."""
    rng = np.random.default_rng(seed)
    norms = np.empty((steps, len(x)))
    for k in range(steps):
        g = f.gradient(x)
        norms[k] = np.abs(g).sum(-1)
        x = x - step * np.sign(g + two_point * draws("signs", x.shape, rng))
    return Run(norms, x)


def alias(
    f: Function, x: Array, steps: int, eta0: float, gap: float | None, d0: float = 0.0
) -> tuple[Array, list[float], float]:
    """ALIAS from one point [d], with the gap known or found: norms, guesses of the gap, eta_T."""
    eta, guess, total, norms, guesses = eta0, d0, 0.0, [], []
    g = f.gradient(x)
    for _ in range(steps):
        norms.append(float(np.abs(g).sum()))
        step = math.sqrt((guess if gap is None else gap) / eta)
        x = x - step * np.sign(g)
        following = f.gradient(x)
        total += step * float((following * np.sign(g)).sum())
        guess = max(guess, total)
        guesses.append(total)
        eta += float(np.abs(following - g).sum()) / step
        g = following
    return np.array(norms), guesses, eta


def marina(
    workers: list[Function],
    x: Array,
    steps: int,
    step: float,
    sent: int,
    tau: float = 0.0,
    *,
    off: float = 0.0,
    seed: int = 0,
) -> tuple[Run, float]:
    """Squared l2 norms, and the values that a worker was asked for, in the mean over runs.

    Every value is off by ``off``, up or down, and otherwise at either end of what is compared.
    """
    rng = np.random.default_rng(seed)
    runs, d = x.shape

    def noise() -> Array | float:
        return draws("signs", x.shape, rng) * off / tau if off else 0.0

    g = np.mean([differences(f, x, tau) for f in workers], 0) + noise()
    asked, norms = np.full(runs, 2.0 * d), np.empty((steps, runs))
    for k in range(steps):
        norms[k] = (np.mean([f.gradient(x) for f in workers], 0) ** 2).sum(-1)
        before, x = x, x - step * g
        if k == steps - 1:
            break
        full = rng.random(runs) < sent / d
        moved, exact = np.zeros_like(x), np.zeros_like(x)
        for f in workers:
            chosen = rng.random((runs, d)).argsort(1) < sent
            now, then, wrong = differences(f, x, tau), differences(f, before, tau), noise()
            moved += (d / sent) * chosen * (now + wrong - (then - wrong)) / len(workers)
            exact += (now + wrong) / len(workers)
        g = np.where(full[:, None], exact, g + moved)
        asked += np.where(full, 2.0 * d, 4.0 * sent)
    return Run(norms, x), float(asked.mean())


def differences(f: Function, x: Array, tau: float) -> Array:
    """A gradient by two-sided differences."""
    if tau == 0:
        return f.gradient(x)
    found = np.empty_like(x)
    for j in range(x.shape[-1]):
        e = np.zeros(x.shape[-1])
        e[j] = tau
        found[:, j] = (f.value(x + e) - f.value(x - e)) / (2 * tau)
    return found
