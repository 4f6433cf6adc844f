"""What is proved of descent along random signs with Spall's steps and radii."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shoestring.zeroth.guarantees.gains import ALPHA, GAMMA, SHARE, Gains
from shoestring.zeroth.guarantees.problem import Problem
from shoestring.zeroth.guarantees.record import Assumption, Bound, Guarantee, Term

_SOURCE = "derived here: docs/papers/guarantees.md, G7; schedule: Spall 1998, section III"
_EXACT: Final = 512
_NODES: Final = 24
Curve = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def spsa_sum(curve: Curve, steps: int) -> float:
    """Return the sum of a smooth function of k over ``0 <= k < steps``.

    The first terms are added up; the rest is an integral, by Gauss's rule on each octave, since the
    sums of long runs are asked for again and again.

    Args:
        curve: the function, of an array.
        steps: how many.
    """
    total = float(curve(np.arange(min(steps, _EXACT), dtype=np.float64)).sum())
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    low = _EXACT - 0.5
    while low < steps - 0.5:
        high = min(2 * low, steps - 0.5)
        half = (high - low) / 2
        total += half * float(weights @ curve(low + half * (nodes + 1)))
        low = high
    return total


@dataclasses.dataclass(frozen=True, slots=True)
class _Sums:
    """Sums over a run, of ``w = (k + 1 + A)^-alpha`` and ``u = (k + 1)^-gamma``."""

    w: float
    wuu: float
    ww: float
    wwu: float
    ww_uu: float


def _sums(steps: int, offset: float) -> _Sums:
    def total(power: int, radius: int) -> float:
        return spsa_sum(
            lambda k: (k + 1 + offset) ** (-power * ALPHA) * (k + 1) ** (-radius * GAMMA), steps
        )

    return _Sums(total(1, 0), total(1, 2), total(2, 0), total(2, 1), total(2, -2))


def _gains(problem: Problem, sums: _Sums, offset: float) -> Gains:
    L, d, noise = problem.L, problem.d, problem.noise  # noqa: N806
    a = (1 + offset) ** ALPHA / (L * d)
    spread = problem.sigma**2 * sums.ww
    if problem.tau is not None:
        spread += noise**2 * sums.ww_uu / (2 * problem.tau**2)
    if spread:
        a = min(a, math.sqrt(2 * problem.delta0 / (L * d * spread)))
    if problem.tau is not None or not noise:
        return Gains(a=a, A=offset, c=problem.tau or 0.0)
    both = noise * math.sqrt((L * d) ** 3 * sums.wuu * sums.ww_uu / 2)
    a = min(a, (4 * problem.delta0 / both) ** (2 / 3))
    return Gains(a=a, A=offset, c=(2 * a * noise**2 * sums.ww_uu / (L * d * sums.wuu)) ** 0.25)


def spsa(problem: Problem) -> Guarantee:
    """Return what is proved of SPSA with Spall's schedule.

    Args:
        problem: the constants; here the noise of each value is its own.
    """
    L, d, sigma = problem.L, problem.d, problem.sigma  # noqa: N806
    offset = SHARE * problem.T
    sums = _sums(problem.T, offset)
    gains = _gains(problem, sums, offset)
    a, c = gains.a, gains.c
    bias = L * d * c / 2
    noise = problem.noise**2 / (2 * c**2) * sums.ww_uu if problem.noise else 0.0
    spread = sigma**2 * sums.ww + 2 * sigma * bias * sums.wwu
    assumptions = {Assumption.SMOOTH_L2, Assumption.LOWER_BOUND}
    if sigma:
        assumptions.add(Assumption.BOUNDED_VARIANCE)
    if problem.noise:
        assumptions.add(Assumption.INDEPENDENT_NOISE)
    terms = (
        Term("2 delta0 / sum a_k", 2 * problem.delta0 / (a * sums.w)),
        Term("sum a_k B_k^2 / sum a_k", bias**2 * sums.wuu / sums.w),
        Term("L d sum a_k^2 (sigma^2 + 2 sigma B_k) / sum a_k", L * d * a * spread / sums.w),
        Term("L d sum a_k^2 Delta^2 / (2 c_k^2) / sum a_k", L * d * a * noise / sums.w),
    )
    what = "squared l2 norm of the gradient, averaged with weights a_k"
    return Guarantee(
        problem=problem,
        rule=spsa,
        step=gains.step(0),
        beta=None,
        tau=gains.tau(0),
        bound=Bound(what, terms, 0.0, "B_k = L d c_k / 2"),
        evaluations=2 * problem.T,
        assumptions=frozenset(assumptions),
        source=_SOURCE,
        gains=gains,
    )
