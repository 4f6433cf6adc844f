"""Whether an answer is right, follows another convention that can be named, or is wrong."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Mapping
from typing import NamedTuple


class Verdict(enum.Enum):
    """What an answer is worth."""

    RIGHT = "right"
    CONVENTION = "convention"
    WRONG = "wrong"
    CRASHED = "crashed"
    MISSING = "not installed"


class Judgement(NamedTuple):
    """A verdict and its reasons.

    Attributes:
        verdict: what the answer is worth.
        added: what it counts beside contractions, by name.
        left_out: what it does not count, by convention.
    """

    verdict: Verdict
    added: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def judge(
    right: int, answer: float, added: Mapping[str, float], terms: Mapping[str, float]
) -> Judgement:
    """Judge a count.

    It follows another convention where the difference is, to the last unit, what the counter
    itself says it added beside contractions, together with some of the terms by its rules.

    Args:
        right: the count by hand.
        answer: the counter's.
        added: by the counter's own list.
        terms: what its rules may add, by kind; negative what they may leave out.
    """
    if answer == right:
        return Judgement(Verdict.RIGHT)
    rest = answer - right - sum(added.values())
    kinds = [kind for kind, size in terms.items() if size]
    for number in range(len(kinds) + 1):
        for some in itertools.combinations(kinds, number):
            if sum(terms[kind] for kind in some) == rest:
                more = tuple(kind for kind in some if terms[kind] > 0)
                less = tuple(kind for kind in some if terms[kind] < 0)
                return Judgement(Verdict.CONVENTION, (*added, *more), less)
    return Judgement(Verdict.WRONG)
