"""What is proved of steps along the gradient's signs, with a step given or found."""

from __future__ import annotations

import math

from shoestring.core.errors import InputError
from shoestring.zeroth.guarantees.problem import Problem
from shoestring.zeroth.guarantees.record import Assumption, Bound, Guarantee, Term


def _smoothness(problem: Problem) -> Assumption:
    return Assumption.SMOOTH_L2 if problem.smooth_inf is None else Assumption.SMOOTH_LINF


def sign_sgd(problem: Problem) -> Guarantee:
    """Return what is proved of sign-SGD with the best step.

    Args:
        problem: the constants.
    """
    smooth, T, delta0 = problem.L_inf, problem.T, problem.delta0  # noqa: N806
    step = math.sqrt(2 * delta0 / (smooth * T))
    floor = math.sqrt(problem.d) * problem.sigma
    terms = (
        Term("delta0 / (step T)", delta0 / (step * T)),
        Term("L_inf step / 2", smooth * step / 2),
        Term("sqrt(d) sigma", floor),
    )
    assumptions = {Assumption.LOWER_BOUND, _smoothness(problem)}
    if problem.sigma:
        assumptions.add(Assumption.BOUNDED_VARIANCE)
    return Guarantee(
        problem=problem,
        rule=sign_sgd,
        step=step,
        beta=None,
        tau=None,
        bound=Bound("average l1 norm of the gradient", terms, floor),
        evaluations=T,
        assumptions=frozenset(assumptions),
        source="derived here: docs/papers/guarantees.md, G5; method: Bernstein et al. 2018",
    )


def alias(problem: Problem) -> Guarantee:
    """Return what is proved of ALIAS, which finds its step by itself; convex functions only.

    Args:
        problem: the constants; with d0 the gap is found too, without it delta0 is taken.

    Raises:
        InputError: d0 is more than the gap.
    """
    smooth, T, delta0 = problem.L_inf, problem.T, problem.delta0  # noqa: N806
    eta0 = smooth if problem.eta0 is None else problem.eta0
    last, after = eta0 + (T - 1) * smooth, eta0 + T * smooth
    log = math.log(after / eta0) + smooth * (1 / eta0 - 1 / after)
    if problem.d0 is None:
        first, what = delta0, "average l1 norm of the gradient"
        over = math.sqrt(delta0 * last) / T
        letter, where = "sqrt(delta0 eta_T) / T", "eta_T = eta0 + T L_inf"
    else:
        first, what = problem.d0, "least l1 norm of the gradient"
        over = _found(delta0, first, T) * math.sqrt(delta0 * last)
        letter = "2 sqrt(delta0 eta_T) / (T / N - 1)"
        where = "eta_T = eta0 + T L_inf; N = log2(delta0 / d0) / 2 + 1, rounded down"
    terms = (
        Term(letter, over),
        Term(f"{letter} (log(eta_T / eta0) + L_inf / eta0)", over * log),
    )
    return Guarantee(
        problem=problem,
        rule=alias,
        step=math.sqrt(first / eta0),
        beta=None,
        tau=None,
        bound=Bound(what, terms, 0.0, where),
        evaluations=T,
        assumptions=frozenset({Assumption.LOWER_BOUND, Assumption.CONVEX, _smoothness(problem)}),
        source="derived here: docs/papers/guarantees.md, G5; method: Medyakov et al. 2025",
    )


def _found(delta0: float, d0: float, steps: int) -> float:
    """Return what the search for the gap costs; infinite where the run is too short for it."""
    if d0 > delta0:
        raise InputError(f"d0={d0:g} is more than delta0={delta0:g}.", hint="d0 is a lower bound.")
    phases = math.floor(0.5 * math.log2(delta0 / d0)) + 1
    longest = -(-steps // phases)
    return 2 / (longest - 1) if longest > 1 else math.inf
