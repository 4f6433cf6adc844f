"""A guarantee, as a record that explains itself."""

from __future__ import annotations

import dataclasses
import enum
import textwrap
from collections.abc import Callable
from typing import Final

from shoestring.core.errors import InputError
from shoestring.zeroth.guarantees.gains import Gains
from shoestring.zeroth.guarantees.problem import Problem, positive

WIDTH: Final = 96
_MOST_BITS: Final = 900  # a float holds no number of iterations beyond


class Assumption(enum.Enum):
    """What a bound rests on."""

    SMOOTH_L2 = "each sample's gradient is L-Lipschitz in the l2 norm"
    SMOOTH_LINF = "the gradient's l1 change is at most L_inf times the l-infinity change of x"
    BOUNDED_VARIANCE = "a sample's gradient is unbiased, of total variance sigma^2 at most"
    ORACLE_NOISE = "every value is off by Delta at most, in whatever way"
    INDEPENDENT_NOISE = "every value has a noise of its own, of mean 0 and deviation Delta at most"
    CONVEX = "f is convex"
    PL = "mu (f - f*) is at most half the squared l2 norm of the gradient"
    LOWER_BOUND = "f is bounded below, and f(x0) - f* is delta0 at most"


@dataclasses.dataclass(frozen=True, slots=True)
class Term:
    """A part of a bound.

    Attributes:
        formula: in the letters of the papers.
        value: its number.
    """

    formula: str
    value: float


@dataclasses.dataclass(frozen=True, slots=True)
class Bound:
    """What is bounded, and by how much.

    Attributes:
        what: is bounded, in words.
        terms: the bound is their sum.
        floor: what no number of iterations gets below.
        where: what letters of the formulas stand for, beside the constants.
    """

    what: str
    terms: tuple[Term, ...]
    floor: float
    where: str = ""

    @property
    def value(self) -> float:
        """The bound."""
        return sum(term.value for term in self.terms)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guarantee:
    """What is proved of a method with the constants given.

    Attributes:
        problem: the constants.
        rule: makes the guarantee from them.
        step: length of a step, the first where they shrink; None where there is none.
        beta: what the momentum keeps; None where there is none.
        tau: radius of the differences, the first where they shrink; 0 where the least is the best;
            None where there is none.
        bound: what is bounded, its number and its parts.
        evaluations: of f in all iterations, in the mean; one worker's where there are several;
            of the gradient for sign-sgd and alias.
        assumptions: what the bound rests on.
        source: where the bound comes from.
        gains: the schedule, where steps shrink.
    """

    problem: Problem
    rule: Callable[[Problem], Guarantee] = dataclasses.field(repr=False)
    step: float | None
    beta: float | None
    tau: float | None
    bound: Bound
    evaluations: int
    assumptions: frozenset[Assumption]
    source: str
    gains: Gains | None = None

    @property
    def method(self) -> str:
        """Name of the method."""
        return self.problem.method

    @property
    def iterations(self) -> int:
        """Number of iterations that the bound is for."""
        return 1 if self.problem.steps is None else self.problem.steps

    def iterations_for(self, eps: float) -> int:
        """Return the least number of iterations after which the bound is at most eps.

        Step, momentum and radius are chosen anew for that number.

        Args:
            eps: of what is bounded.

        Raises:
            InputError: noise or the radius keep the bound above eps for ever.
        """
        positive(eps, "eps")
        high = 1
        while not self._value(high) <= eps:
            high *= 2
            if eps <= self.bound.floor or high.bit_length() > _MOST_BITS:
                raise InputError(
                    f"no number of iterations brings the bound of {self.method} to {eps:.3g}.",
                    hint=f"ask for more than {self.bound.floor:.3g}, or lower the noise.",
                )
        low = high // 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._value(middle) <= eps else (middle, high)
        return high

    def _value(self, steps: int) -> float:
        if self.problem.steps is None:
            return self.bound.value
        return self.rule(dataclasses.replace(self.problem, steps=steps)).bound.value

    def explain(self) -> str:
        """Return formula, numbers, assumptions and source, in lines for a terminal."""
        parts = [f"{term.value:>10.3g}   {term.formula}" for term in self.bound.terms]
        constants = {"d": self.problem.d, **self.problem.given()}
        shown = (f"{name} {_short(value)}" for name, value in constants.items())
        rows = {"where": self.bound.where} if self.bound.where else {}
        rows["with"] = ", ".join(shown)
        if self.problem.steps is not None:
            rows["floor"] = f"{self.bound.floor:.3g}, however long it runs"
        rows["assumes"] = "; ".join(a.value for a in Assumption if a in self.assumptions)
        rows["source"] = self.source
        wrapped = (_row(name, text) for name, text in rows.items())
        return "\n".join([str(self), "  the bound is the sum of", *parts, *wrapped])

    def __str__(self) -> str:
        after = f"after {self.iterations:,} iterations, {self.evaluations:,} evaluations"
        if self.problem.steps is None:
            after = f"for {self.evaluations:,} evaluations"
        chosen = {"step": self.step, "beta": self.beta, "tau": self.tau}
        settings = [f"{name} {value:.4g}" for name, value in chosen.items() if value is not None]
        if self.gains is not None:
            settings.append(f"a {self.gains.a:.4g}, A {self.gains.A:.4g}, c {self.gains.c:.4g}")
        head = f"{self.method}: {self.bound.what} <= {self.bound.value:.3g}"
        return "\n".join([head, f"  {after}", "  " + ",  ".join(settings)])


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _row(name: str, text: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent=f"  {name:<8} ", subsequent_indent=" " * 11)
