"""A guarantee as a record: it reads well, turns round, and refuses what has no meaning."""

from __future__ import annotations

import dataclasses
import math
import pickle
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.core.errors import InputError
from shoestring.zeroth.guarantees import (
    Assumption,
    difference_error,
    finite_difference_radius,
    guarantee,
)
from shoestring.zeroth.guarantees.spsa import spsa_sum

METHODS: dict[str, dict[str, object]] = {
    "sgd": {"sigma": 0.5, "Delta": 1e-8},
    "jaguar-sign": {"sigma": 0.5, "Delta": 1e-9},
    "jaguar-muon": {"sigma": 0.5, "Delta": 1e-9, "shape": (4, 5)},
    "sign-sgd": {"sigma": 0.01},
    "alias": {},
    "marina": {"Delta": 1e-9, "workers": 3, "coordinates": 2},
    "spsa": {"sigma": 0.5, "Delta": 1e-3},
}


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=6, deadline=None)
@given(scale=st.floats(0.02, 0.95), more=st.floats(1.0, 3.0))
def test_iterations_are_the_least_and_grow_as_less_is_asked(
    method: str, scale: float, more: float
) -> None:
    found = guarantee(method, d=20, L=2.0, delta0=1.0, T=1000, **METHODS[method])
    eps = found.bound.floor + scale * (found.bound.value - found.bound.floor)

    def bound(steps: int) -> float:
        again = guarantee(method, d=20, L=2.0, delta0=1.0, T=steps, **METHODS[method])
        return again.bound.value

    steps = found.iterations_for(eps)
    assert bound(steps) <= eps < bound(steps - 1)
    assert found.iterations_for(eps * more) <= steps


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("steps", [1, 2, 1000, 10**12])
def test_bounds_fall_towards_their_floors(method: str, steps: int) -> None:
    given = {"d": 20, "L": 2.0, "delta0": 1.0, **METHODS[method]}
    now, later = (guarantee(method, T=n, **given) for n in (steps, 10**6 * steps))
    assert now.bound.value > later.bound.value > later.bound.floor
    assert later.bound.floor == now.bound.floor
    assert guarantee(method, T=10**80, **given).bound.value == pytest.approx(
        now.bound.floor, rel=1e-3, abs=1e-6
    )


@pytest.mark.parametrize("directions", ["rademacher", "gaussian"])
@pytest.mark.parametrize("noise", [0.0, 1e-3])
def test_the_step_of_descent_is_the_best_for_its_bound(directions: str, noise: float) -> None:
    d, sigma, delta0, steps, mu, tau = 20, 0.8, 1.0, 300, 0.5, 1e-2
    found = [
        guarantee(
            "sgd",
            d=d,
            L=1.0,
            sigma=sigma,
            Delta=noise,
            tau=tau if noise else None,
            delta0=delta0,
            T=steps,
            mu=rate,
            directions=directions,
        )
        for rate in (None, mu)
    ]
    lengths, k = np.full(1, float(d)), d
    if directions == "gaussian":
        lengths, k = np.random.default_rng(0).chisquare(d, 400_000), d + 2
    off = tau * lengths / 2 + noise / tau if noise else 0 * lengths
    bias, cross = (lengths * off**2).mean() / k, (off**2 * (1 - lengths / k) ** 2).mean()
    if directions == "rademacher":
        cross = 0.0  # the length is known, and k is it
    lost = k * (sigma**2 + 2 * sigma * math.sqrt(bias))
    share = math.sqrt(cross) / (math.sqrt(cross) + math.sqrt(bias + cross)) if cross else 0.0
    floor = (math.sqrt(cross) + math.sqrt(bias + cross)) ** 2

    def plain(step: float) -> float:
        within = 2 * delta0 / (step * steps) + step * lost + bias
        return (math.sqrt(cross) + math.sqrt(within + cross)) ** 2

    def linear(step: float) -> float:
        rate = mu * (1 - share)
        return (1 - step * rate) ** steps * delta0 + step * lost / (2 * rate) + floor / (2 * mu)

    for proved, formula in zip(found, (plain, linear), strict=True):
        assert proved.bound.value == pytest.approx(formula(proved.step), rel=2e-3)
        others = [formula(proved.step * scale) for scale in (0.9, 1.1)]
        assert min(others) > formula(proved.step)
    assert found[0].bound.floor == pytest.approx(floor, rel=0.02)


def jaguar_sign_at(step: float, p: float) -> float:
    d, L, sigma, noise, delta0, steps = 20, 2.0, 0.5, 1e-3, 1.0, 5000  # noqa: N806
    return (
        delta0 / (step * steps)
        + d * L * step * (2 * d / p - 1.5)
        + 2 * (d / p - 1) * math.sqrt(2 * d * L * delta0) / steps
        + 2 * math.sqrt(d * p / (2 - p)) * sigma
        + 2 * d * math.sqrt(2 * noise * L)
    )


def jaguar_muon_at(step: float, p: float) -> float:
    d, L, sigma, noise, delta0, steps = 20, 2.0, 0.5, 1e-3, 1.0, 5000  # noqa: N806
    keeps = math.sqrt(1 - p * (2 - p) / d)
    lag = keeps / (1 - keeps)
    return (
        delta0 / (step * steps)
        + L * step * 4 / 2
        + 2 * math.sqrt(4) * lag * (L * step * math.sqrt(4) + math.sqrt(2 * L * delta0) / steps)
        + 2 * math.sqrt(4) * math.sqrt(p / (2 - p)) * sigma
        + 2 * math.sqrt(4) * math.sqrt(d) * math.sqrt(2 * noise * L)
    )


@pytest.mark.parametrize(
    ("method", "formula", "shape"),
    [("jaguar-sign", jaguar_sign_at, None), ("jaguar-muon", jaguar_muon_at, (4, 5))],
)
def test_the_step_of_jaguar_is_the_best_for_its_bound(
    method: str, formula: Callable[[float, float], float], shape: tuple[int, int] | None
) -> None:
    found = guarantee(method, d=20, L=2.0, sigma=0.5, Delta=1e-3, delta0=1.0, T=5000, shape=shape)
    p = 1 - found.beta
    assert found.bound.value == pytest.approx(formula(found.step, p))
    assert min(formula(found.step * scale, p) for scale in (0.9, 1.1)) > found.bound.value
    # p weighs the main terms against each other, and leaves out what falls faster
    best = min(
        formula(found.step * wide, share)
        for wide in np.geomspace(0.2, 5, 60)
        for share in np.geomspace(0.01, 1, 60)
    )
    assert found.bound.value < 1.1 * best


def test_the_step_of_marina_is_the_best_for_its_bound() -> None:
    d, L, noise, delta0, steps, n, sent = 20, 2.0, 1e-6, 1.0, 5000, 3, 2  # noqa: N806
    given = {"d": d, "L": L, "delta0": delta0, "T": steps, "workers": n, "coordinates": sent}
    found = guarantee("marina", Delta=noise, **given)
    root, error = (d / sent - 1) / math.sqrt(n), d * 2 * noise * L

    def at(theta: float) -> float:
        step = 1 / (L * (1 + (1 + theta) * root))
        left = (1 + 1 / theta) * error * (1 + 4 * root**2 * (1 + theta))
        return 2 * delta0 / (step * steps) + left

    theta = (1 / (found.step * L) - 1) / root - 1
    assert found.bound.value == pytest.approx(at(theta))
    assert min(at(theta * 0.9), at(theta * 1.1)) > found.bound.value
    linear = guarantee("marina", Delta=noise, mu=0.1, **given)
    assert linear.step == pytest.approx(1 / (L * (1 + 2 * math.sqrt(2) * root)))
    last = (1 - 0.1 * linear.step) ** steps * delta0 + error / 0.1 * (1 + 16 * root**2)
    assert linear.bound.value == pytest.approx(last)
    many = guarantee("marina", d=20, L=1.0, mu=1.0, delta0=1.0, T=100, workers=10_000)
    assert many.step == pytest.approx(1 / 20 / 2)  # p / (2 mu) binds where messages blur little


def test_a_step_of_nothing_where_noise_outweighs_all() -> None:
    found = guarantee("sgd", d=100, L=1.0, mu=1.0, sigma=100.0, delta0=0.01, T=5)
    assert found.step == 0
    assert found.bound.value == pytest.approx(0.01)


@pytest.mark.parametrize("method", [*METHODS, "finite-differences"])
def test_a_guarantee_reads_well(method: str) -> None:
    run = {} if method == "finite-differences" else {"delta0": 1.0, "T": 1000}
    found = guarantee(method, d=20, L=2.0, **run, **METHODS.get(method, {}))
    text = found.explain()
    assert text.startswith(f"{method}: {found.bound.what} <= {found.bound.value:.3g}\n")
    assert text.startswith(str(found))
    assert max(map(len, text.splitlines())) <= 100
    flat = " ".join(text.split())
    assert all(a.value in flat for a in found.assumptions)
    assert found.source in flat
    assert all(term.formula in flat for term in found.bound.terms)
    again = pickle.loads(pickle.dumps(found))
    assert again == found
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.step = 1.0  # type: ignore[misc]


def test_assumptions_are_those_that_count() -> None:
    run = {"d": 10, "L": 1.0, "delta0": 1.0, "T": 10}
    plain = {Assumption.SMOOTH_L2, Assumption.LOWER_BOUND}
    assert guarantee("sgd", **run).assumptions == plain
    noisy = guarantee("sgd", sigma=1.0, Delta=1e-3, mu=0.5, **run).assumptions
    assert noisy - plain == {
        Assumption.BOUNDED_VARIANCE,
        Assumption.ORACLE_NOISE,
        Assumption.PL,
    }
    own = guarantee("spsa", Delta=1e-3, **run).assumptions
    assert own - plain == {Assumption.INDEPENDENT_NOISE}
    assert guarantee("sign-sgd", L_inf=3.0, d=10, delta0=1.0, T=10).assumptions == {
        Assumption.SMOOTH_LINF,
        Assumption.LOWER_BOUND,
    }


RUN = {"d": 10, "L": 1.0, "delta0": 1.0, "T": 10}


@pytest.mark.parametrize(
    ("method", "changed", "said"),
    [
        ("adam", {}, "no guarantee for 'adam'"),
        ("sgd", {"L": None}, "sgd needs L"),
        ("sgd", {"delta0": None}, "sgd needs delta0"),
        ("sgd", {"T": None}, "sgd needs T"),
        ("sgd", {"T": 2.5}, "T=2.5 is no count"),
        ("sgd", {"d": 0}, "d=0 is no count"),
        ("sgd", {"sigma": -1.0}, "sigma=-1.0"),
        ("sgd", {"delta0": math.nan}, "delta0=nan"),
        ("sgd", {"mu": 2.0}, "larger than L"),
        ("sgd", {"directions": "sphere"}, "nothing is proved of 'sphere'"),
        ("sgd", {"shape": (2, 5)}, "shape has no say in sgd"),
        ("marina", {"sigma": 1.0}, "sigma has no say in marina"),
        ("marina", {"coordinates": 11}, "more than d"),
        ("marina", {"mu": 2.0}, "larger than L"),
        ("jaguar-muon", {}, "needs the shape"),
        ("jaguar-muon", {"shape": (3, 4)}, "needs the shape"),
        ("alias", {"d0": 2.0}, "more than delta0"),
        ("finite-differences", {}, "delta0 has no say"),
    ],
)
def test_what_is_refused(method: str, changed: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        guarantee(method, **{**RUN, **changed})
    assert caught.value.hint


def test_what_no_run_reaches_is_refused() -> None:
    found = guarantee("jaguar-sign", Delta=1e-4, **RUN)
    with pytest.raises(InputError, match="no number of iterations"):
        found.iterations_for(found.bound.floor)
    with pytest.raises(InputError, match="eps=0"):
        found.iterations_for(0)


def test_a_radius_needs_one_derivative() -> None:
    for one in ({}, {"L": 1.0, "M3": 1.0}):
        with pytest.raises(InputError, match="one bound"):
            finite_difference_radius(1e-3, **one)
    assert finite_difference_radius(0.0, 1.0) == 0
    with pytest.raises(InputError, match="tau"):
        difference_error(0.0, 1e-3, 1.0)


@pytest.mark.parametrize("tau", [None, 0.2])
def test_the_bound_of_spsa_is_its_formula(tau: float | None) -> None:
    d, L, sigma, noise, delta0, steps = 5, 2.0, 0.3, 0.1, 1.0, 3000  # noqa: N806
    found = guarantee("spsa", d=d, L=L, sigma=sigma, Delta=noise, delta0=delta0, T=steps, tau=tau)
    assert found.gains is not None
    a = np.array([found.gains.step(k) for k in range(steps)])
    c = np.array([found.gains.tau(k) for k in range(steps)])
    assert a[0] <= 1 / (L * d)
    assert tau is None or c[0] == tau

    def formula(wide: float, far: float) -> float:
        step, radius = wide * a, far * c
        bias = L * d * radius / 2
        spread = sigma**2 + 2 * sigma * bias + noise**2 / (2 * radius**2)
        parts = 2 * delta0 + (step * bias**2).sum() + L * d * (step**2 * spread).sum()
        return float(parts / step.sum())

    assert found.bound.value == pytest.approx(formula(1, 1), rel=1e-6)
    best = min(
        formula(wide, far if tau is None else 1)
        for wide in np.geomspace(0.2, 1 / (L * d * a[0]), 30)
        for far in np.geomspace(0.3, 3, 30)
    )
    assert found.bound.value < 1.2 * best


def test_spsa_takes_the_exponents_and_the_offset_of_spall() -> None:
    gains = guarantee("spsa", d=5, L=1.0, Delta=0.1, delta0=1.0, T=1000).gains
    assert gains is not None
    assert pytest.approx(100.0) == gains.A
    assert gains.step(899) / gains.step(399) == pytest.approx(2**-0.602)
    assert gains.tau(1023) / gains.tau(0) == pytest.approx(2**-1.01)


@pytest.mark.parametrize("steps", [1, 4096, 4097, 10**6])
def test_the_sums_of_long_runs(steps: int) -> None:
    for offset in (0.0, 0.1 * steps):
        curve = lambda k, o=offset: (k + 1 + o) ** -1.204 * (k + 1) ** 0.202  # noqa: E731
        exact = float(curve(np.arange(steps, dtype=np.float64)).sum())
        assert spsa_sum(curve, steps) == pytest.approx(exact, rel=1e-7)
