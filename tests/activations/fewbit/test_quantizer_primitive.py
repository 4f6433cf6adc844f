"""Tables for the primitive meet the asymptotes, and are no worse than the published ones."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import integrate

from shoestring.activations.fewbit import bends, primitive, starts
from shoestring.activations.fewbit.functions import function
from shoestring.activations.fewbit.quantizer import Quantizer
from shoestring.activations.fewbit.weights import as_weight
from shoestring.core.errors import InputError
from tests.oracles import fewbit_tables as oracle

DOMAIN = (-100.0, 100.0)


def relus(x: float, steps: tuple[float, ...], places: tuple[float, ...]) -> float:
    return sum(a * max(x - c, 0.0) for a, c in zip(steps, places, strict=True))


def distance(name: str, steps: tuple[float, ...], places: tuple[float, ...]) -> float:
    """Return the integral of the squared distance of a sum of ReLUs from a function."""
    known = function(name)
    bounds = sorted({-100.0, -30.0, -12.0, *places, 12.0, 30.0, 100.0})

    def square(x: float) -> float:
        value = float(bends._values(known, np.array([x]))[0])
        return (value - relus(x, steps, places)) ** 2

    pairs = itertools.pairwise(bounds)
    return float(sum(integrate.quad(square, a, b, epsabs=1e-13, limit=200)[0] for a, b in pairs))


def steps_of(table: Quantizer) -> tuple[float, ...]:
    return tuple(np.diff(table.levels, prepend=0.0)[1:].tolist())


@pytest.mark.parametrize("name", oracle.PRIMITIVE)
def test_two_bits_are_at_least_as_good_as_the_published_constants(name: str) -> None:
    table = Quantizer.fit(name, 2, objective="primitive")
    published = distance(name, *oracle.PRIMITIVE[name])
    assert table.error == pytest.approx(distance(name, steps_of(table), table.borders), rel=1e-6)
    assert table.error < published
    # They were found by simulated annealing, which came close.
    assert published / table.error < 1.001


@pytest.mark.parametrize("name", ["gelu", "silu", "mish", "gelu_tanh", "softplus", "hardswish"])
def test_asymptotes_are_met_and_errors_fall(name: str) -> None:
    errors = []
    for bits in (1, 2, 3):
        table = Quantizer.fit(name, bits, objective="primitive")
        errors.append(table.error)
        steps = np.array(steps_of(table))
        assert table.levels[0] == pytest.approx(0, abs=1e-12)
        assert steps.sum() == pytest.approx(1, abs=1e-12)
        assert steps @ np.array(table.borders) == pytest.approx(0, abs=1e-9)
        assert table.codes == tuple(range(2**bits))
    assert errors[1] < errors[0] / 2
    assert errors[2] < errors[1] / 10


def test_one_bit_of_a_function_between_zero_and_x_is_relu() -> None:
    table = Quantizer.fit("silu", 1, objective="primitive")
    assert table.borders == pytest.approx((0.0,), abs=1e-12)
    assert table.levels == pytest.approx((0.0, 1.0), abs=1e-12)


def test_each_objective_is_best_at_its_own() -> None:
    slope, whole = (Quantizer.fit("gelu", 2, objective=o) for o in ("derivative", "primitive"))
    assert whole.error_under("uniform") == pytest.approx(whole.error, rel=1e-9)
    assert whole.error < slope.error_under("uniform", objective="primitive")
    assert slope.error < whole.error_under("uniform", objective="derivative")


def test_asymptotes_need_not_be_zero_and_x() -> None:
    table = Quantizer.fit("selu", 3, objective="primitive")
    assert table.levels[0] == pytest.approx(0, abs=1e-12)
    assert table.levels[-1] == pytest.approx(1.0507009873554805, abs=1e-12)
    mirrored = Quantizer.fit("logsigmoid", 2, objective="primitive")
    usual = Quantizer.fit("softplus", 2, objective="primitive")
    assert mirrored.error == pytest.approx(usual.error, rel=1e-6)


def test_a_weight_moves_the_bends() -> None:
    even, seen = (
        Quantizer.fit("gelu", 2, weight=w, objective="primitive") for w in ("uniform", "normal")
    )
    assert seen.error < even.error_under("normal")
    assert seen.error_under("normal") == pytest.approx(seen.error, rel=1e-6)


@pytest.mark.parametrize("num", [3, 7])
def test_the_gradient_is_that_of_the_error(num: int) -> None:
    task = bends.task_of(function("gelu"), as_weight("uniform"), DOMAIN)
    at = starts.starts(task, num)[1] + 0.03
    _, gradient = primitive._loss(at, task)
    step = 1e-6
    expected = [
        (primitive._loss(at + step * unit, task)[0] - primitive._loss(at - step * unit, task)[0])
        / (2 * step)
        for unit in np.eye(len(at))
    ]
    assert np.allclose(gradient, expected, rtol=1e-6, atol=1e-9)


def test_every_run_is_the_same() -> None:
    first, again = (Quantizer.fit("mish", 3, objective="primitive") for _ in range(2))
    assert first == again


@pytest.mark.parametrize(
    ("name", "bits", "says"),
    [("softsign", 2, "not straight"), ("tanh", 1, "do not meet")],
)
def test_functions_without_such_asymptotes_are_refused(name: str, bits: int, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        Quantizer.fit(name, bits, objective="primitive")
    assert caught.value.hint
