"""What is proved of JAGUAR SignSGD and JAGUAR Muon, which see one coordinate a step."""

from __future__ import annotations

import math

from shoestring.core.errors import InputError
from shoestring.zeroth.guarantees.differences import (
    coordinate_error,
    noise_assumptions,
    radius,
)
from shoestring.zeroth.guarantees.problem import Problem
from shoestring.zeroth.guarantees.record import Assumption, Bound, Guarantee, Term

_SOURCE = "derived here: docs/papers/guarantees.md, {}; method: Petrov et al. 2025, algorithm {}"

_LAG = "p = 1 - beta; r = min(shape); K = q / (1 - q) with q^2 = 1 - p (2 - p) / d"


def _share(problem: Problem, smooth: float) -> float:
    """Return p = 1 - beta at which lag and noise weigh the same."""
    if not problem.sigma:
        return 1.0
    return min(1.0, 2 * math.sqrt(problem.delta0 * smooth / problem.T) / problem.sigma)


def jaguar_sign(problem: Problem) -> Guarantee:
    """Return what is proved of JAGUAR SignSGD that sees one coordinate a step.

    Args:
        problem: the constants.
    """
    d, T, delta0 = problem.d, problem.T, problem.delta0  # noqa: N806
    smooth = problem.L_inf
    p = _share(problem, smooth)
    lag = d / p - 1
    step = math.sqrt(delta0 / (T * smooth * (0.5 + 2 * lag)))
    error = coordinate_error(problem)
    terms = (
        Term("delta0 / (step T)", delta0 / (step * T)),
        Term("L_inf step (1/2 + 2 (d/p - 1))", smooth * step * (0.5 + 2 * lag)),
        Term("2 (d/p - 1) sqrt(2 L_inf delta0) / T", 2 * lag * math.sqrt(2 * smooth * delta0) / T),
        Term("2 sqrt(d p / (2 - p)) sigma", 2 * math.sqrt(d * p / (2 - p)) * problem.sigma),
        Term("2 d (L tau / 2 + Delta / tau)", 2 * d * error),
    )
    given = problem.smooth_inf is not None
    assumptions = noise_assumptions(problem)
    return Guarantee(
        problem=problem,
        rule=jaguar_sign,
        step=step,
        beta=1 - p,
        tau=radius(problem),
        bound=Bound("average l1 norm of the gradient", terms, 2 * d * error, "p = 1 - beta"),
        evaluations=2 * T,
        assumptions=assumptions | ({Assumption.SMOOTH_LINF} if given else set()),
        source=_SOURCE.format("G3", 1),
    )


def jaguar_muon(problem: Problem) -> Guarantee:
    """Return what is proved of JAGUAR Muon on one matrix, with exact polar factors.

    Args:
        problem: the constants; its shape is that of the matrix.

    Raises:
        InputError: there is no shape, or not one of d entries.
    """
    d, T, delta0, L = problem.d, problem.T, problem.delta0, problem.L  # noqa: N806
    if problem.shape is None or math.prod(problem.shape) != d:
        raise InputError(
            f"{problem.method} needs the shape of a matrix of d={d} entries.",
            hint="give shape=(rows, columns).",
        )
    rank = min(problem.shape)
    p = _share(problem, d * L)
    keeps = math.sqrt(1 - p * (2 - p) / d)
    lag = keeps * (1 + keeps) * d / (p * (2 - p))
    step = math.sqrt(delta0 / (T * L * rank * (0.5 + 2 * lag)))
    error = coordinate_error(problem)
    first = 2 * lag * math.sqrt(2 * rank * L * delta0) / T
    floor = 2 * math.sqrt(rank * d) * error
    terms = (
        Term("delta0 / (step T)", delta0 / (step * T)),
        Term("L step r (1/2 + 2 K)", L * step * rank * (0.5 + 2 * lag)),
        Term("2 K sqrt(2 r L delta0) / T", first),
        Term("2 sqrt(r p / (2 - p)) sigma", 2 * math.sqrt(rank * p / (2 - p)) * problem.sigma),
        Term("2 sqrt(r d) (L tau / 2 + Delta / tau)", floor),
    )
    return Guarantee(
        problem=problem,
        rule=jaguar_muon,
        step=step,
        beta=1 - p,
        tau=radius(problem),
        bound=Bound("average nuclear norm of the gradient", terms, floor, _LAG),
        evaluations=2 * T,
        assumptions=noise_assumptions(problem),
        source=_SOURCE.format("G4", 2),
    )
