"""How far a slope by differences is off, and the radius at which it is least so."""

from __future__ import annotations

import math

from shoestring.core.errors import InputError
from shoestring.zeroth.guarantees.problem import Problem, positive
from shoestring.zeroth.guarantees.record import Assumption, Bound, Guarantee, Term

_LETTERS = "one of L= and M3="


def finite_difference_radius(
    Delta: float,  # noqa: N803  # as every paper calls it
    L: float | None = None,  # noqa: N803
    *,
    M3: float | None = None,  # noqa: N803
    norm: float = 1.0,
) -> float:
    r"""Return the radius at which a two-sided difference is least off.

    .. math::

        \tau = \frac{1}{\|z\|} \sqrt{\frac{2 \Delta}{L}} \quad \text{or} \quad
        \tau = \frac{1}{\|z\|} \sqrt[3]{\frac{3 \Delta}{M_3}}

    With :math:`\Delta` the noise of a value, L the Lipschitz constant of the gradient,
    :math:`M_3` a bound on the third derivative, z the direction.

    Args:
        Delta: how far a value may be off. In float32 rounding alone makes it some ``2^-24 |f|``.
        L: the constant; either this or M3.
        M3: the bound.
        norm: length of the direction: 1 for a coordinate, ``sqrt(d)`` for random signs.

    Returns:
        The radius; 0 without noise, since less is better then.

    Raises:
        InputError: a number is out of range, or there is not one of L and M3.

    Example:
        >>> finite_difference_radius(2e-6, 4.0)
        0.001

    Source: derived in docs/papers/guarantees.md, G1.
    """
    _check(Delta, L, M3, norm)
    if M3 is not None:
        return math.cbrt(3 * Delta / M3) / norm
    assert L is not None
    return math.sqrt(2 * Delta / L) / norm


def difference_error(
    tau: float,
    Delta: float,  # noqa: N803  # as every paper calls it
    L: float | None = None,  # noqa: N803
    *,
    M3: float | None = None,  # noqa: N803
    norm: float = 1.0,
) -> float:
    r"""Return how far a two-sided difference may be off.

    .. math::

        \Bigl| \frac{f(x + \tau z) - f(x - \tau z)}{2 \tau} - z^\top \nabla f(x) \Bigr| \le
        \frac{L \tau \|z\|^2}{2} + \frac{\Delta}{\tau} \quad \text{or} \quad
        \frac{M_3 \tau^2 \|z\|^3}{6} + \frac{\Delta}{\tau}

    Both are reached. The letters are those of `finite_difference_radius`.

    Args:
        tau: the radius; 0 only without noise.
        Delta: how far a value may be off.
        L: Lipschitz constant of the gradient; either this or M3.
        M3: bound on the third derivative.
        norm: length of the direction.

    Raises:
        InputError: a number is out of range, or there is not one of L and M3.

    Example:
        >>> round(difference_error(0.001, 2e-6, 4.0), 6)
        0.004

    Source: derived in docs/papers/guarantees.md, G1.
    """
    _check(Delta, L, M3, norm)
    positive(tau, "tau", zero=Delta == 0)
    noise = Delta / tau if Delta else 0.0
    if M3 is not None:
        return M3 * tau**2 * norm**3 / 6 + noise
    assert L is not None
    return L * tau * norm**2 / 2 + noise


def _check(noise: float, smooth: float | None, third: float | None, norm: float) -> None:
    if (smooth is None) == (third is None):
        raise InputError("a radius needs one bound on a derivative.", hint=f"give {_LETTERS}.")
    positive(noise, "Delta", zero=True)
    positive(smooth, "L")
    positive(third, "M3")
    positive(norm, "norm")


def radius(problem: Problem, norm: float = 1.0) -> float:
    """Return the radius that a problem names, or the best one.

    Args:
        problem: the constants.
        norm: length of a direction.
    """
    if problem.tau is not None:
        return problem.tau
    return finite_difference_radius(problem.noise, problem.L, norm=norm)


def coordinate_error(problem: Problem) -> float:
    """Return how far a partial derivative is off at the radius of a problem.

    Args:
        problem: the constants.
    """
    return difference_error(radius(problem), problem.noise, problem.L)


def noise_assumptions(problem: Problem) -> frozenset[Assumption]:
    """Return what is assumed of smoothness and noise, where every value enters differences.

    Args:
        problem: the constants.
    """
    found = {Assumption.SMOOTH_L2, Assumption.LOWER_BOUND}
    if problem.sigma:
        found.add(Assumption.BOUNDED_VARIANCE)
    if problem.noise:
        found.add(Assumption.ORACLE_NOISE)
    return frozenset(found)


def finite_differences(problem: Problem) -> Guarantee:
    """Return what is proved of a gradient by differences along every coordinate.

    Args:
        problem: the constants.
    """
    tau = radius(problem)
    noise = problem.noise / tau if problem.noise else 0.0
    terms = (Term("L tau / 2", problem.L * tau / 2), Term("Delta / tau", noise))
    return Guarantee(
        problem=problem,
        rule=finite_differences,
        step=None,
        beta=None,
        tau=tau,
        bound=Bound("error of each partial derivative", terms, sum(term.value for term in terms)),
        evaluations=2 * problem.d,
        assumptions=noise_assumptions(problem) - {Assumption.LOWER_BOUND},
        source="derived here: docs/papers/guarantees.md, G1",
    )
