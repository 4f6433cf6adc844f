"""The front: no schedule on it beats another, both ends are there, and its bounds hold."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.activations.remat.answer import OverBudgetError
from shoestring.activations.remat.front import Front
from shoestring.activations.remat.front_search import Candidate, pareto_front, thinned
from shoestring.activations.remat.graph import Graph
from shoestring.activations.remat.simulate import simulate
from shoestring.activations.remat.solvers.closure import hull, solve_peak
from shoestring.activations.remat.solvers.closure_order import closure_order
from tests.oracles.remat_graphs import chain, differentiated, graphs
from tests.oracles.remat_orders import cheapest_order


@settings(max_examples=25)
@given(graphs(most=4))
def test_each_schedule_is_the_best_at_its_budget_and_its_bound_holds(graph: Graph) -> None:
    front = pareto_front(graph)
    assert front[0].answer.seconds == graph.seconds
    for before, after in itertools.pairwise(front):
        assert after.peak < before.peak
        assert after.answer.seconds > before.answer.seconds
    for schedule in front:
        run = simulate(graph, schedule.order)
        assert (run.peak, run.seconds) == (schedule.peak, schedule.answer.seconds)
        assert schedule.peak <= schedule.budget
        staged = cheapest_order(graph, schedule.budget, staged=True)
        free = cheapest_order(graph, schedule.budget, staged=False)
        assert staged is not None
        assert free is not None
        assert run.seconds <= simulate(graph, staged).seconds + 1e-9
        assert schedule.lower_bound <= simulate(graph, free).seconds + 1e-9


def test_it_reaches_as_low_as_any_solver_and_no_hull_point_beats_it() -> None:
    graph = chain(24)
    front = pareto_front(graph, n=200)
    points = [simulate(graph, closure_order(graph, p.recomputed)) for p in hull(graph)]
    for point in points:
        assert any(s.peak <= point.peak and s.answer.seconds <= point.seconds for s in front)
    assert front[-1].peak < min(point.peak for point in points)
    assert {"none", "closure", "rotor"} == {s.answer.solver for s in front}


def test_a_schedule_that_is_smaller_and_faster_stands_there_once() -> None:
    # Within the largest peak an order is found that is as small as the others and as fast.
    graph = differentiated(
        [(), (0,), (0,), (0, 1, 2), (3,), (0, 4)],
        sizes=[7, 2, 2, 1, 8, 1],
        seconds=[0.0, 2.0, 1.0, 9.0, 1.0, 9.0],
        workspaces=[3, 0, 0, 0, 3, 0],
        random=frozenset({2}),
    )
    front = pareto_front(graph, n=3)
    assert len({schedule.order for schedule in front}) == len(front)


def test_its_bounds_are_those_of_its_budgets() -> None:
    graph = chain(24)
    lower = graph.seconds
    for schedule in pareto_front(graph, n=8):
        with contextlib.suppress(OverBudgetError):
            lower = max(lower, solve_peak(graph, schedule.budget).bound)
        assert schedule.lower_bound == min(lower, schedule.answer.seconds)
    assert lower > graph.seconds


def test_both_ends_stay_however_few_are_asked_for() -> None:
    graph = chain(16)
    whole = pareto_front(graph, n=100)
    for n in (2, 5):
        front = pareto_front(graph, n=n)
        assert len(front) == n
        assert front[0].order == graph.plain
        assert front[-1].peak == whole[-1].peak
    with pytest.raises(ValueError, match="two ends"):
        pareto_front(graph, n=1)


def test_when_time_is_up_the_best_so_far_is_there_with_bounds_that_hold() -> None:
    graph = chain(16)
    front = pareto_front(graph, time_limit=0.0)
    assert front[0].order == graph.plain
    assert not front[0].answer.complete
    assert all(s.lower_bound == graph.seconds for s in front)


def _area(points: Sequence[Candidate]) -> float:
    """Return the bytes times seconds that the points beat, up to the worst of both."""
    worst = max(c.seconds for c in points), max(c.peak for c in points)
    rising = sorted(points, key=lambda c: c.seconds)
    ends = [*(c.seconds for c in rising[1:]), worst[0]]
    return sum(
        (end - own.seconds) * (worst[1] - own.peak) for own, end in zip(rising, ends, strict=True)
    )


@given(st.lists(st.integers(1, 9), min_size=4, max_size=6), st.data())
def test_what_is_left_out_loses_the_least_area(steps: list[int], data: st.DataObject) -> None:
    seconds = list(itertools.accumulate(steps))
    peaks = list(itertools.accumulate(data.draw(st.integers(1, 9)) for _ in steps))
    points = [
        Candidate(peak, float(s), (), "") for peak, s in zip(reversed(peaks), seconds, strict=True)
    ]
    left = thinned(points, len(points) - 1)
    others = [points[:k] + points[k + 1 :] for k in range(1, len(points) - 1)]
    assert _area(left) == max(map(_area, others))
    assert thinned(points, 2) == [points[0], points[-1]]


def test_the_front_as_text_and_as_csv() -> None:
    front = Front(pareto_front(chain(14), n=4))
    head, *lines = front.table().splitlines()
    assert head.split()[0] == "peak"
    assert len({len(line[: line.rindex("%")]) for line in lines}) == 1  # the numbers are aligned
    assert "0.0%" in lines[0]
    rows = list(csv.DictReader(io.StringIO(front.to_csv())))
    assert [int(row["peak_bytes"]) for row in rows] == [s.peak for s in front.schedules]
    assert [float(row["overhead"]) for row in rows] == [s.overhead for s in front.schedules]
    assert front.least == front.schedules[-1].peak
    shown = front._repr_html_()
    assert shown.count("<tr") == 5
    assert "style=" in shown
