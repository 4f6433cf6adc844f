"""Histograms count what is there, can be added, and weigh errors as the sample would."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.activations.fewbit.functions import function
from shoestring.activations.fewbit.quantizer import Quantizer
from shoestring.activations.fewbit.weights import Histogram, as_weight
from shoestring.core.errors import InputError


def drawn(num: int, *, scale: float = 1.0, seed: int = 0) -> torch.Tensor:
    return torch.randn(num, generator=torch.Generator().manual_seed(seed)) * scale


@given(st.lists(st.floats(-1e5, 1e5, width=32), max_size=30), st.sampled_from(["f4", "f8"]))
def test_every_value_is_in_its_bin(values: list[float], kind: str) -> None:
    counted = Histogram.of(np.array(values, dtype=kind))
    edges = np.array(counted.edges)
    assert sum(counted.counts) == len(values)
    nonempty = np.flatnonzero(counted.counts)
    for value in values:
        slack = 1e-5 * (1 + abs(value))  # float32 may round across an edge
        low, high = edges[nonempty] - slack, edges[nonempty + 1] + slack
        assert ((low <= value) & (value <= high)).any()
    assert np.diff(edges).min() < 0.0101
    assert (np.diff(edges) / (1 + np.abs(edges[1:]))).max() < 0.0203


def test_parts_add_up_and_order_does_not_matter() -> None:
    a, b = drawn(1000, seed=1), drawn(500, scale=30, seed=2)
    both = Histogram.of(torch.cat([a, b]))
    assert Histogram.of(a).merge(Histogram.of(b)) == both
    assert Histogram.of(b).merge(Histogram.of(a)) == both
    assert Histogram.of(b.reshape(10, 50).t()) == Histogram.of(b)


def test_what_is_no_number_is_left_out_and_what_is_far_is_not() -> None:
    given_ = torch.tensor([torch.nan, torch.inf, -torch.inf, 1e30, -1e30, 0.0])
    counted = Histogram.of(given_)
    assert sum(counted.counts) == 3
    assert (counted.counts[0], counted.counts[-1]) == (1, 1)
    assert sum(Histogram.of(torch.empty(0)).counts) == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_any_floating_dtype_and_gradients_are_counted(dtype: torch.dtype) -> None:
    x = drawn(100).to(dtype).requires_grad_()
    assert sum(Histogram.of(x).counts) == 100


def test_large_tensors_are_counted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    x = drawn(1000)
    whole = Histogram.of(x)
    monkeypatch.setattr("shoestring.activations.fewbit.weights._CHUNK", 64)
    assert Histogram.of(x) == whole


def test_a_histogram_is_a_density() -> None:
    weight = as_weight(Histogram((-1.0, 0.0, 3.0), (1.0, 3.0)))
    x = np.array([-2.0, -0.5, 1.0, 2.9, 3.1])
    assert weight.density(x).tolist() == [0.0, 0.25, 0.25, 0.25, 0.0]
    assert weight.jumps == (-1.0, 3.0)


@pytest.mark.parametrize("name", ["gelu", "tanh"])
def test_a_table_fitted_to_a_sample_is_best_on_the_sample(name: str) -> None:
    sample = torch.cat([drawn(4000, scale=0.4) - 1.5, drawn(4000, scale=0.5, seed=1) + 1]).double()
    fitted = Quantizer.fit(name, 3, weight=Histogram.of(sample))
    slopes = function(name).derivative(sample)

    def on_sample(table: Quantizer) -> float:
        return float((slopes - table.derivative(sample)).square().mean())

    for other in ("uniform", "normal"):
        assert on_sample(fitted) < on_sample(Quantizer.fit(name, 3, weight=other))
    # The error is the mean square error of an input.
    assert fitted.error == pytest.approx(on_sample(fitted), rel=0.02)


@given(st.floats(0.02, 3), st.floats(-3, 3))
@settings(max_examples=15)
def test_few_values_seen_give_a_table(scale: float, centre: float) -> None:
    seen = Histogram.of(drawn(5) * scale + centre)
    table = Quantizer.fit("mish", 4, weight=seen)
    assert np.isfinite(table.levels).all()
    # Five bins of a hundredth: sixteen levels leave next to nothing.
    assert 0 <= table.error < 1e-5


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Histogram((0, 1), (1, 2)), "do not bound"),
        (lambda: Histogram((0,), ()), "do not bound"),
        (lambda: Histogram((0, 0), (1,)), "do not ascend"),
        (lambda: Histogram((0, np.inf), (1,)), "do not ascend"),
        (lambda: Histogram((0, 1), (-1,)), "negative"),
        (lambda: Histogram.of(torch.arange(3)), "cannot be counted"),
        (lambda: Histogram((0, 1), (1,)).merge(Histogram((0, 2), (1,))), "different edges"),
        (lambda: as_weight(Histogram.of(torch.empty(0))), "empty"),
    ],
)
def test_what_is_no_histogram_is_refused(make: object, says: str) -> None:
    assert callable(make)
    with pytest.raises(InputError, match=says) as caught:
        make()
    assert caught.value.hint
