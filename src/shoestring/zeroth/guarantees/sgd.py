"""What is proved of gradient descent along random directions."""

from __future__ import annotations

import dataclasses
import math

from shoestring.core.errors import InputError
from shoestring.zeroth.guarantees.differences import noise_assumptions, radius
from shoestring.zeroth.guarantees.problem import Problem
from shoestring.zeroth.guarantees.record import Assumption, Bound, Guarantee, Term

_SOURCE = "derived here: docs/papers/guarantees.md, G2; method: Malladi et al. 2023, algorithm 1"


@dataclasses.dataclass(frozen=True, slots=True)
class _Slope:
    """What a direction and a radius make of a step.

    Attributes:
        k: what the squared length of an estimate is over that of the gradient.
        bias: mean of ``n b^2 / k``, with n the squared length of z and b the error of a slope.
        cross: mean of ``b^2 (1 - n / k)^2``; 0 where all directions have one length.
    """

    k: float
    bias: float
    cross: float

    @property
    def floor(self) -> float:
        return (math.sqrt(self.cross) + math.sqrt(self.bias + self.cross)) ** 2

    def variance(self, sigma: float) -> float:
        """Return what multiplies ``L gamma``: ``k (sigma^2 + 2 sigma sqrt(bias))``."""
        return self.k * (sigma**2 + 2 * sigma * math.sqrt(self.bias))


def _slope(problem: Problem, tau: float) -> _Slope:
    d = problem.d
    grows, stays = problem.L * tau / 2, problem.noise / tau if problem.noise else 0.0
    if problem.directions != "gaussian":
        return _Slope(d, (grows * d + stays) ** 2, 0.0)
    moments = [math.prod(d + 2 * i for i in range(j)) for j in range(5)]
    square = (stays**2, 2 * grows * stays, grows**2)  # of b = grows n + stays, by powers of n
    k = d + 2

    def mean(power: int) -> float:
        return sum(c * moments[i + power] for i, c in enumerate(square))

    cross = mean(0) - 2 * mean(1) / k + mean(2) / k**2
    return _Slope(k, mean(1) / k, max(cross, 0.0))


def sgd(problem: Problem) -> Guarantee:
    """Return what is proved of `ZOSGD` without momentum.

    Args:
        problem: the constants; its directions are "rademacher" or "gaussian".

    Raises:
        InputError: mu is larger than L.
    """
    tau = radius(problem, norm=math.sqrt(problem.d))
    slope = _slope(problem, tau)
    if problem.pl is None:
        step, bound = _stationary(problem, slope)
    else:
        step, bound = _linear(problem, slope, problem.pl)
    assumptions = noise_assumptions(problem)
    return Guarantee(
        problem=problem,
        rule=sgd,
        step=step,
        beta=None,
        tau=tau,
        bound=bound,
        evaluations=2 * problem.T,
        assumptions=assumptions | ({Assumption.PL} if problem.pl is not None else set()),
        source=_SOURCE,
    )


def _letter(problem: Problem) -> str:
    return "(d + 2)" if problem.directions == "gaussian" else "d"


def _where(problem: Problem) -> str:
    if problem.directions == "gaussian":
        return "B the error of a slope, weighted by the lengths of the directions"
    return "B = L tau d / 2 + Delta / tau"


def _stationary(problem: Problem, slope: _Slope) -> tuple[float, Bound]:
    L, T, delta0, k = problem.L, problem.T, problem.delta0, _letter(problem)  # noqa: N806
    variance = slope.variance(problem.sigma)
    step = 1 / (L * slope.k)
    if variance:
        step = min(step, math.sqrt(2 * delta0 / (L * variance * T)))
    start, noise = 2 * delta0 / (step * T), L * step * variance
    most = (math.sqrt(slope.cross) + math.sqrt(start + noise + slope.bias + slope.cross)) ** 2
    terms = (
        Term("2 delta0 / (step T)", start),
        Term(f"L step {k} (sigma^2 + 2 sigma B)", noise),
        Term("B^2", most - start - noise),
    )
    return step, Bound(
        "average squared l2 norm of the gradient", terms, slope.floor, _where(problem)
    )


def _linear(problem: Problem, slope: _Slope, mu: float) -> tuple[float, Bound]:
    L, T, delta0, k = problem.L, problem.T, problem.delta0, _letter(problem)  # noqa: N806
    if mu > L:
        raise InputError(f"mu={mu:g} is larger than L={L:g}.", hint="mu is L at most.")
    variance = slope.variance(problem.sigma)
    share = math.sqrt(slope.cross / slope.floor) if slope.cross else 0.0
    rate = mu * (1 - share)
    step = 1 / (L * slope.k)
    if variance:
        step = min(step, _balanced(L * variance / (2 * rate), rate, delta0, T))
    floor = slope.floor / (2 * mu)
    terms = (
        Term(
            "(1 - step mu)^T delta0",
            math.exp(T * math.log1p(-step * rate)) * delta0 if step * rate < 1 else 0.0,
        ),
        Term(f"L step {k} (sigma^2 + 2 sigma B) / (2 mu)", L * step * variance / (2 * rate)),
        Term("B^2 / (2 mu)", floor),
    )
    return step, Bound("f - f* in the mean", terms, floor, _where(problem))


def _balanced(slope: float, rate: float, delta0: float, steps: int) -> float:
    """Return the step at which ``(1 - step rate)^T delta0 + step slope`` is least."""
    ratio = slope / (rate * steps * delta0)
    if ratio >= 1:
        return 0.0  # noise outweighs whatever a step gains
    return 1 / rate if steps == 1 else -math.expm1(math.log(ratio) / (steps - 1)) / rate
