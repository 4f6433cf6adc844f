"""The table of the chain against closed forms and against all schedules."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.activations.remat.solvers.rotor import Act, Option, Run, Stage, Table, measure
from tests.oracles.rotor import chains, fastest, replayed, unit_chain


def seconds(stages: list[Stage], budget: int, slots: int = 500) -> float:
    found = Table(stages, budget, slots=slots).solve(budget)
    return math.inf if found is None else found.seconds


def layers(count: int, options: int) -> list[Stage]:
    """Layers of a hundred inputs' bytes, of which an option keeps some for some seconds."""
    run, stages = Run(1.0, 100), []
    for _ in range(count):
        kept = [
            Option(run, run, 10 + 10 * k, Run(2.0 + (1 - k / options) ** 2, 120))
            for k in range(options)
        ]
        stages.append(Stage(10, run, run, (110, 110), tuple(kept), (Run(3.0, 120),), 10, 0, 1))
    return stages


def scaled(stage: Stage, factor: int) -> Stage:
    def run(one: Run) -> Run:
        return Run(one.seconds, one.peak * factor)

    return Stage(
        stage.input * factor,
        run(stage.first),
        run(stage.again),
        (stage.freeing[0] * factor, stage.freeing[1] * factor),
        tuple(
            Option(run(one.first), run(one.again), one.kept * factor, run(one.back))
            for one in stage.options
        ),
        tuple(run(one) for one in stage.solos),
        stage.arrives * factor,
        stage.pinned * factor,
        stage.results * factor,
    )


# --- closed forms ---------------------------------------------------------------------------


def test_one_stage_takes_its_fastest_solo_that_fits() -> None:
    run = Run(1.0, 0)
    stage = Stage(0, run, run, (0, 0), (), (Run(3.0, 20), Run(5.0, 7), Run(4.0, 12)))
    table = Table([stage], 25)
    found = [table.solve(budget) for budget in (6, 7, 11, 12, 19, 20, 25)]
    assert [one and one.seconds for one in found] == [None, 5.0, 5.0, 4.0, 4.0, 3.0, 3.0]
    assert table.front == ((7, 5.0), (12, 4.0), (20, 3.0))


@pytest.mark.parametrize("count", [1, 2, 3, 5, 10, 21, 35])
@pytest.mark.parametrize("inputs", [1, 2, 3, 4])
def test_equal_stages_take_the_binomial_count(count: int, inputs: int) -> None:
    """Griewank and Walther (2000): r l - C(s+r, r-1) forwards, C(s+r-1, s) < l <= C(s+r, s)."""
    rounds = next(r for r in range(count) if count <= math.comb(inputs + r, inputs))
    least = rounds * count - (math.comb(inputs + rounds, rounds - 1) if rounds else 0)
    # the first input is there anyway; the last one that is made takes its place among the others
    assert seconds(unit_chain(count), inputs) == least


def test_one_input_beside_the_first_takes_a_quadratic_count() -> None:
    assert seconds(unit_chain(7), 1) == 7 * 6 / 2


def test_all_is_kept_where_it_fits() -> None:
    stages = layers(6, 2)
    found = Table(stages, 10_000).solve(10_000)
    assert found is not None
    assert [operation.act for operation in found.operations] == (
        [Act.KEEP] * 5 + [Act.SOLO] + [Act.BACK] * 5
    )


# --- against all schedules ------------------------------------------------------------------


@settings(max_examples=400)
@given(chains(), st.integers(1, 45))
def test_equals_the_search_over_all_schedules(stages: list[Stage], budget: int) -> None:
    assert seconds(stages, budget) == fastest(stages, budget)


@settings(max_examples=100)
@given(chains(most=5, plain=True), st.integers(1, 30))
def test_no_schedule_that_starts_anywhere_is_faster(stages: list[Stage], budget: int) -> None:
    assert seconds(stages, budget) == fastest(stages, budget, anywhere=True)


@given(chains(most=6), st.integers(1, 60), st.integers(1, 12))
def test_a_schedule_takes_what_it_says(stages: list[Stage], budget: int, slots: int) -> None:
    found = Table(stages, budget, slots=slots).solve(budget)
    if found is not None:
        run = replayed(stages, found.operations)
        assert run == measure(stages, found.operations) == (found.seconds, found.peak)
        assert found.peak <= budget


# --- properties -----------------------------------------------------------------------------


@given(chains(most=5), st.integers(2, 60))
def test_more_memory_is_never_slower(stages: list[Stage], budget: int) -> None:
    table = Table(stages, budget)
    found = [table.solve(smaller) for smaller in range(1, budget + 1)]
    times = [math.inf if one is None else one.seconds for one in found]
    assert times == sorted(times, reverse=True)


@given(chains(most=5), st.integers(1, 60))
def test_one_table_answers_smaller_budgets(stages: list[Stage], budget: int) -> None:
    table = Table(stages, budget)
    steps = dict(table.front)
    for smaller in range(1, budget + 1):
        found = table.solve(smaller)
        time = math.inf if found is None else found.seconds
        assert time == seconds(stages, smaller)
        assert time == min((s for size, s in steps.items() if size <= smaller), default=math.inf)


@given(chains(most=5), chains(most=1), st.integers(1, 60))
def test_an_option_more_is_never_slower(
    stages: list[Stage], others: list[Stage], budget: int
) -> None:
    more = [*stages]
    more[0] = more[0]._replace(options=(*more[0].options, *others[0].options))
    more[0] = more[0]._replace(solos=(*more[0].solos, *others[0].solos))
    assert seconds(more, budget) <= seconds(stages, budget)


@given(chains(most=5), st.integers(20, 60), st.integers(3, 19))
def test_rounding_is_safe(stages: list[Stage], budget: int, slots: int) -> None:
    exact, rounded = seconds(stages, budget), seconds(stages, budget, slots)
    assert rounded >= exact


def test_rounding_costs_little() -> None:
    stages = layers(40, 4)
    for budget in (900, 1300, 2000, 3000):
        exact = seconds(stages, budget, slots=budget)
        rounded = seconds([scaled(stage, 997) for stage in stages], budget * 997)
        assert exact <= rounded <= 1.02 * exact


def test_the_least_budget_is_found() -> None:
    stages = layers(12, 3)
    least = Table(stages, 5000, slots=5000).least()
    assert least is not None
    assert Table(stages, least.peak).solve(least.peak) is not None
    assert Table(stages, least.peak - 1).solve(least.peak - 1) is None


@pytest.mark.parametrize(("budget", "slots"), [(0, 5), (5, 0)])
def test_what_makes_no_sense_is_refused(budget: int, slots: int) -> None:
    with pytest.raises(ValueError, match="a budget of a byte"):
        Table(unit_chain(2), budget, slots=slots)
