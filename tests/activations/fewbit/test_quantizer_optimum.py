"""The dynamic program is exact, and what follows it finds the optimum of any smooth function."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shoestring.activations.fewbit import fitting, integrals, optimum
from shoestring.activations.fewbit.callables import as_function
from shoestring.activations.fewbit.functions import Floats, function
from shoestring.activations.fewbit.weights import as_weight
from tests.oracles import fewbit_tables as oracle

POINTS = np.linspace(-4, 4, 33)


def cells(values: list[float], masses: list[float]) -> Floats:
    v, w = np.array(values), np.array(masses)
    return np.stack([w, v * w, v * v * w], axis=1)


@given(
    data=st.lists(
        st.tuples(st.floats(-2, 2), st.sampled_from([0.0, 0.3, 1.0])), min_size=3, max_size=14
    ),
    count=st.integers(1, 3),
)
def test_the_program_is_exact_on_any_cells(data: list[tuple[float, float]], count: int) -> None:
    made = cells(*(list(column) for column in zip(*data, strict=True)))
    cuts = optimum.partitions(made, [count])[count]
    assert len(cuts) == count - 1
    bounds = [0, *cuts.tolist(), len(made)]
    assert bounds == sorted(set(bounds))
    cost = sum(oracle.run_cost(made[a:b]) for a, b in itertools.pairwise(bounds))
    assert cost == pytest.approx(oracle.least_cost(made, count), abs=1e-12)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("in_order", [False, True])
def test_the_program_is_exact_on_forty_cells(count: int, in_order: bool) -> None:
    drawn = np.random.default_rng(count).normal(size=40)
    made = cells((np.sort(drawn) if in_order else drawn).tolist(), [1.0] * 40)
    bounds = [0, *optimum.partitions(made, [count])[count].tolist(), 40]
    cost = sum(oracle.run_cost(made[a:b]) for a, b in itertools.pairwise(bounds))
    assert cost == pytest.approx(oracle.least_cost(made, count), abs=1e-12)


def test_one_program_serves_all_widths() -> None:
    made = cells(np.random.default_rng(0).normal(size=30).tolist(), [1.0] * 30)
    together = optimum.partitions(made, [2, 4, 8])
    for count, cuts in together.items():
        assert cuts.tolist() == optimum.partitions(made, [count])[count].tolist()


class Drawn:
    """A smooth function: a sum of a few bumps, steps and waves."""

    def __init__(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.factors = random.normal(size=(3, 3)).round(3)
        self.shifts = random.uniform(-2, 2, size=(3, 3)).round(3)
        self.rates = random.uniform(0.4, 2.0, size=(3, 3)).round(3)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        total = torch.zeros_like(x)
        for rule, *rows in zip(
            (torch.tanh, torch.sin, lambda z: torch.exp(-z * z)),
            self.factors,
            self.shifts,
            self.rates,
            strict=True,
        ):
            for factor, shift, rate in zip(*rows, strict=True):
                total = total + factor * rule(rate * (x - shift))
        return total


def brute_force(values: Floats, masses: Floats, count: int, *, places: int = 160) -> float:
    """Return the least error over borders between groups of ordered atoms."""
    bounds = np.unique(np.linspace(0, len(values), places + 1).astype(int))
    moments = np.add.reduceat(
        np.stack([masses, masses * values, masses * values**2], axis=1), bounds[:-1], axis=0
    )
    sums = np.concatenate([np.zeros((1, 3)), np.cumsum(moments, axis=0)])

    def costs(low: Floats, high: Floats) -> Floats:
        mass, first, second = (high - low).T
        return second - np.divide(first**2, mass, out=np.zeros_like(mass), where=mass > 0)

    cuts = np.array(list(itertools.combinations(range(1, len(sums) - 1), count - 1)))
    edges = [np.zeros(len(cuts), dtype=int), *cuts.T, np.full(len(cuts), len(sums) - 1)]
    pairs = itertools.pairwise(edges)
    return float(np.min(sum(costs(sums[a], sums[b]) for a, b in pairs)))


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("seed", range(10))
def test_ten_drawn_functions_against_brute_force(seed: int, count: int) -> None:
    known = as_function(Drawn(seed), (-4, 4))
    sampled = integrals.samples(known, as_weight("uniform"), (-4.0, 4.0))
    # The best table need not have a power of two levels.
    separate = fitting.polish.polished_contiguous(
        sampled, optimum.contiguous(sampled, [count])[count]
    )
    shared = fitting.polish.polished_shared(sampled, optimum.shared(sampled, [count])[count])
    x = (np.arange(16000) + 0.5) / 2000 - 4
    slopes, masses = known.derivative_at(x), np.full(16000, 1 / 2000)
    best = brute_force(slopes, masses, count)
    best_shared = brute_force(np.sort(slopes), masses, count)
    # Brute force has 160 places for borders: what it finds is close above the optimum.
    assert 0.98 * best <= separate.error <= best + 1e-6
    assert 0.98 * best_shared <= shared.error <= best_shared + 1e-6
    assert shared.error <= separate.error + 1e-12


@pytest.mark.parametrize("name", ["gelu", "softsign"])
def test_moments_between_any_borders_are_integrals(name: str) -> None:
    known = function(name)
    sampled = integrals.samples(known, as_weight("normal"), (-100.0, 100.0))
    borders = np.array([-3.3, -0.5, -0.4999, sampled.points[1000], 0.7, 60.0])
    sums = sampled.between(borders)
    points = [-100.0, *borders.tolist(), 100.0]
    density = as_weight("normal").density
    expected = oracle.cells_of(
        lambda x: float(known.derivative_at(np.array([x]))[0]),
        lambda x: float(density(np.array([x]))[0]),
        points,
    )
    assert np.allclose(sums, expected, rtol=1e-8, atol=1e-12)


def test_callables_on_arrays_and_on_tensors_are_one() -> None:
    on_arrays = as_function(np.tanh)
    x = torch.linspace(-5, 5, 101, dtype=torch.float64)
    assert torch.allclose(on_arrays(x), torch.tanh(x), rtol=0, atol=1e-15)
    assert torch.allclose(
        on_arrays.derivative(x), function("tanh").derivative(x), rtol=0, atol=1e-11
    )
    module = as_function(torch.nn.GELU())
    assert module.name == "GELU"
    with torch.no_grad():
        assert torch.allclose(module.derivative(x), function("gelu").derivative(x), atol=1e-14)
