"""Counting parts: the same least seconds as trying every choice of every part."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.activations.remat.solvers.closure_counts import count_choices, spread_choices
from shoestring.activations.remat.solvers.closure_parts import Choice, Form, Kind

FORM = Form((), (), ())


@st.composite
def kinds(draw: st.DrawFn) -> list[Kind]:
    """Draw up to three kinds of up to three parts, with choices that no other beats."""
    found: list[Kind] = []
    for _ in range(draw(st.integers(0, 3))):
        count = draw(st.integers(1, 3))
        saved = sorted(draw(st.sets(st.integers(0, 20), min_size=1, max_size=4)), reverse=True)
        gains = [draw(st.integers(1, 9)) for _ in saved]
        seconds = itertools.accumulate(gains[1:], initial=0)
        choices = [Choice(m, float(c), ()) for m, c in zip(saved, seconds, strict=True)]
        found.append(Kind(FORM, tuple((k,) for k in range(count)), tuple(choices)))
    return found


def least(parts: list[Kind], saved_bytes: int) -> float:
    """Return the least seconds of all ways to choose for each part; infinity if none fits."""
    own = [kind.choices or () for kind in parts for _ in kind.members]
    every = itertools.product(*own)
    fits = (way for way in every if sum(choice.saved for choice in way) <= saved_bytes)
    return min((sum(choice.seconds for choice in way) for way in fits), default=math.inf)


@given(kinds(), st.integers(0, 120), st.sampled_from([3.5, 10.5, 200.0]))
@settings(deadline=None)
def test_equals_trying_every_choice(parts: list[Kind], saved_bytes: int, below: float) -> None:
    best = least(parts, saved_bytes)
    counted = count_choices(parts, saved_bytes, below=below, until=math.inf)
    assert counted is not None
    if best >= below:
        assert (counted.times, counted.bound) == (None, below)
        return
    assert counted.times is not None
    chosen = spread_choices(parts, counted.times)
    assert [len(own) for own in chosen] == [len(kind.members) for kind in parts]
    every = list(itertools.chain.from_iterable(chosen))
    assert sum(choice.saved for choice in every) <= saved_bytes
    assert sum(choice.seconds for choice in every) == counted.bound == best


def test_too_many_ways_and_no_time_are_said() -> None:
    choices = (Choice(8, 0.0, ()), Choice(0, 1.0, ()))
    parts = [Kind(FORM, ((0,), (1,), (2,)), choices)]
    assert count_choices(parts, 9, below=9.0, until=math.inf, most=3) is None
    assert count_choices(parts, 9, below=9.0, until=-math.inf) is None


@pytest.mark.parametrize("count", [1, 4])
def test_the_first_parts_keep_least(count: int) -> None:
    choices = (Choice(8, 0.0, ()), Choice(0, 1.0, (0,)))
    parts = [Kind(FORM, tuple((k,) for k in range(count + 2)), choices)]
    (own,) = spread_choices(parts, [(2, count)])
    assert [choice.saved for choice in own] == [0] * count + [8, 8]
