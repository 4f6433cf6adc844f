"""What is proved of MARINA on differences along some of the coordinates."""

from __future__ import annotations

import dataclasses
import math

from shoestring.core.errors import InputError
from shoestring.zeroth.guarantees.differences import coordinate_error, noise_assumptions, radius
from shoestring.zeroth.guarantees.problem import Problem
from shoestring.zeroth.guarantees.record import Assumption, Bound, Guarantee, Term

_SOURCE = "derived here: docs/papers/guarantees.md, G6; exact gradients: Gorbunov et al. 2021"

_WHERE = "a = (1 - p) omega / (p n) with p = K / d, omega = d / K - 1"


@dataclasses.dataclass(frozen=True, slots=True)
class _Rounds:
    """What a message costs and how much it blurs.

    Attributes:
        root: root of ``(1 - p) omega / (p n)``.
        p: how often everything is sent.
        asked: values asked for in a round, in the mean.
        error: of a whole gradient by differences, squared.
    """

    root: float
    p: float
    asked: float
    error: float


def _rounds(problem: Problem) -> _Rounds:
    d, sent, n = problem.d, problem.coordinates or 1, problem.workers or 1
    if sent > d:
        raise InputError(f"coordinates={sent} is more than d={d}.", hint="d is the most.")
    p, omega = sent / d, d / sent - 1
    root = math.sqrt((1 - p) * omega / (p * n))
    return _Rounds(root, p, 2 * d * p + 4 * sent * (1 - p), d * coordinate_error(problem) ** 2)


def marina(problem: Problem) -> Guarantee:
    """Return what is proved of ZO-MARINA, which sends all coordinates with chance ``p = K / d``.

    Args:
        problem: the constants.

    Raises:
        InputError: more coordinates are sent than there are, or mu is larger than L.
    """
    rounds = _rounds(problem)
    step, bound = (
        _stationary(problem, rounds) if problem.pl is None else _linear(problem, rounds, problem.pl)
    )
    assumptions = noise_assumptions(problem)
    return Guarantee(
        problem=problem,
        rule=marina,
        step=step,
        beta=None,
        tau=radius(problem),
        bound=bound,
        evaluations=2 * problem.d + math.ceil((problem.T - 1) * rounds.asked),
        assumptions=assumptions | ({Assumption.PL} if problem.pl is not None else set()),
        source=_SOURCE,
    )


def _stationary(problem: Problem, rounds: _Rounds) -> tuple[float, Bound]:
    a, error = rounds.root**2, rounds.error
    start = 2 * problem.delta0 * problem.L / problem.T
    what = "average squared l2 norm of the gradient"
    # theta splits the error of differences from that of messages; exact gradients need none.
    if rounds.root:
        theta = math.sqrt(error * (1 + 4 * a) / (start * rounds.root + 4 * a * error))
        step = 1 / (problem.L * (1 + (1 + theta) * rounds.root))
        left = error * (1 + 1 / theta) * (1 + 4 * a * (1 + theta)) if error else 0.0
    else:
        step, left = 1 / problem.L, error
    floor = error * (1 + 8 * a + 4 * rounds.root * math.sqrt(1 + 4 * a))
    terms = (
        Term("2 delta0 / (step T)", 2 * problem.delta0 / (step * problem.T)),
        Term("(1 + 1/theta) (1 + 4 a (1 + theta)) d (L tau / 2 + Delta / tau)^2", left),
    )
    return step, Bound(what, terms, floor, f"{_WHERE}; theta splits the errors")


def _linear(problem: Problem, rounds: _Rounds, mu: float) -> tuple[float, Bound]:
    if mu > problem.L:
        raise InputError(f"mu={mu:g} is larger than L={problem.L:g}.", hint="mu is L at most.")
    a = rounds.root**2
    theta = 1.0 if rounds.error and rounds.root else 0.0
    step = 1 / (problem.L * (1 + (1 + theta) * math.sqrt(2) * rounds.root))
    if rounds.root:
        step = min(step, rounds.p / (2 * mu))
    share = (1 + 1 / theta) * (1 + 8 * a * (1 + theta)) if theta else 1.0
    floor = share * rounds.error / (2 * mu)
    left = math.exp(problem.T * math.log1p(-step * mu)) if step * mu < 1 else 0.0
    terms = (
        Term("(1 - step mu)^T delta0", left * problem.delta0),
        Term("2 (1 + 16 a) d (L tau / 2 + Delta / tau)^2 / (2 mu)", floor),
    )
    return step, Bound("f - f* in the mean", terms, floor, _WHERE)
