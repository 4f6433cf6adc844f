"""What is known of torch's activations agrees with torch."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shoestring.activations.fewbit.functions import CURVED, NAMES, STRAIGHT, Function, function
from shoestring.activations.fewbit.pieces import pieces
from shoestring.activations.fewbit.quantizer import Quantizer
from shoestring.core.errors import InputError

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
OTHERS: list[tuple[str, Mapping[str, float]]] = [
    ("elu", {"alpha": 0.3}),
    ("celu", {"alpha": 0.3}),
    ("celu", {"alpha": 2.5}),
    ("softplus", {"beta": 2.0, "threshold": 3.0}),
    ("softplus", {"beta": 0.5, "threshold": 30.0}),
    ("leaky_relu", {"negative_slope": 0.2}),
    ("leaky_relu", {"negative_slope": -0.2}),
    ("threshold", {"threshold": 0.3, "value": 0.1}),
    ("threshold", {"threshold": -0.3, "value": 0.1}),
    ("hardtanh", {"min_val": -0.3, "max_val": 0.7}),
    ("hardshrink", {"lambd": 0.3}),
    ("softshrink", {"lambd": 0.3}),
    ("hardshrink", {"lambd": 0.0}),
    ("softshrink", {"lambd": 0.0}),
]
ALL = [(name, {}) for name in NAMES] + OTHERS


def of_torch(known: Function, x: torch.Tensor) -> torch.Tensor:
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(known(leaf).sum(), leaf)
    return slope


def around(known: Function, dtype: torch.dtype) -> torch.Tensor:
    """Return numbers of all sizes, and the kinks with their neighbours."""
    generator = torch.Generator().manual_seed(0)
    numbers = [torch.randn(997, generator=generator, dtype=torch.float64) * s for s in (0.1, 1, 8)]
    x = torch.cat([*numbers, torch.tensor([0.0, -0.0])]).to(dtype)
    for kink in known.kinks or ():
        # Both roundings of the kink, and what is next to them.
        at = torch.tensor([kink], dtype=torch.float32).to(dtype)
        for side in (-torch.inf, torch.inf):
            up = at
            for _ in range(3):
                x = torch.cat([x, up, -up])
                up = up.nextafter(torch.tensor(side, dtype=dtype))
    return x


@pytest.mark.parametrize(("name", "parameters"), ALL)
def test_derivatives_are_those_of_torch(name: str, parameters: Mapping[str, float]) -> None:
    known = function(name, parameters)
    x = around(known, torch.float64)
    away = torch.ones_like(x, dtype=torch.bool)
    if name == "softplus":  # x * beta may round onto the threshold, on either side of its kink
        scaled = x * dict(known.parameters)["beta"]
        away = (scaled - dict(known.parameters)["threshold"]).abs() > 1e-9
    # torch rounds the reciprocal of celu's alpha to float32.
    close = 1e-7 if name == "celu" and parameters else 2e-14
    assert torch.allclose(known.derivative(x)[away], of_torch(known, x)[away], rtol=0, atol=close)


def test_celu_is_exact_where_torch_is_not() -> None:
    x = torch.linspace(-9, 9, 501, dtype=torch.float64)
    expected = torch.where(x > 0, 1.0, torch.exp(x / 0.3))
    found = function("celu", {"alpha": 0.3}).derivative(x)
    assert torch.allclose(found, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "parameters"), [row for row in ALL if row[0] in STRAIGHT])
def test_one_bit_is_exact_kinks_included(
    name: str, parameters: Mapping[str, float], dtype: torch.dtype
) -> None:
    known = function(name, parameters)
    table = Quantizer.fit(known, 1)
    assert (len(table.levels), table.error) == (2, 0.0)
    x = around(known, dtype)
    expected = of_torch(known, x)
    assert torch.equal(known.derivative(x), expected)
    # Vectorised code and the remainder of a loop agree with themselves.
    assert torch.equal(torch.cat([of_torch(known, part) for part in x.split(7)]), expected)
    # The rule that codes go by: an input on a border belongs to the interval below.
    borders = torch.tensor(table.borders_in(dtype), dtype=dtype)
    values = torch.tensor(table.levels, dtype=torch.float64).to(dtype)[list(table.codes)]
    assert torch.equal(values[(x[:, None] > borders).sum(1)], expected)
    assert torch.equal(table.derivative(x), expected)


@given(
    low=st.floats(-2, 2),
    width=st.floats(0.01, 2),
    dtype=st.sampled_from(DTYPES),
)
def test_bands_anywhere_are_exact(low: float, width: float, dtype: torch.dtype) -> None:
    known = function("hardtanh", {"min_val": low, "max_val": low + width})
    x = around(known, dtype)
    assert torch.equal(known.derivative(x), of_torch(known, x))


@given(lambd=st.floats(0, 3), dtype=st.sampled_from(DTYPES), name=st.sampled_from(["hard", "soft"]))
def test_shrinking_anywhere_is_exact(lambd: float, dtype: torch.dtype, name: str) -> None:
    known = function(f"{name}shrink", {"lambd": lambd})
    x = around(known, dtype)
    assert torch.equal(known.derivative(x), of_torch(known, x))


@pytest.mark.parametrize(("name", "parameters"), ALL)
def test_outputs_decide_derivatives_where_they_say_so(
    name: str, parameters: Mapping[str, float]
) -> None:
    known = function(name, parameters)
    x = around(known, torch.float64)
    if known.output_slope is None:
        with pytest.raises(InputError, match="does not follow from its output"):
            known.from_output(x)
        return
    expected = of_torch(known, x)
    # Softplus has two inputs of one output at its threshold; the slopes are exp(-20) apart.
    close = {"softplus": 3e-9, "celu": 1e-7 if parameters else 1e-14}.get(name, 1e-14)
    assert torch.allclose(known.from_output(known(x)), expected, rtol=0, atol=close)
    if known.pieces is not None:
        for dtype in DTYPES:
            x = around(known, dtype)
            assert torch.equal(known.from_output(known(x)), of_torch(known, x))


def test_which_functions_have_their_derivative_from_the_output() -> None:
    without = {name for name in NAMES if function(name).output_slope is None}
    not_one_to_one = {"gelu", "gelu_tanh", "silu", "mish", "hardswish", "tanhshrink"}
    assert without == not_one_to_one | {"hardsigmoid"}  # rounds 3 - eps to 1
    # Sharp thresholds, falling or flat branches: one output, two slopes.
    assert function("softplus", {"threshold": 3.0}).output_slope is None
    assert function("leaky_relu", {"negative_slope": -0.1}).output_slope is None
    assert function("threshold", {"threshold": 0.0, "value": 1.0}).output_slope is None
    assert function("hardshrink", {"lambd": 0.0}).output_slope is None
    # A kink that 16-bit numbers do not have is rounded otherwise in forward than in backward.
    assert function("hardtanh", {"max_val": 0.7}).output_slope is None
    assert function("hardtanh", {"max_val": 0.75}).output_slope is not None


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_derivatives_end_in_limits_and_keep_the_dtype(name: str, dtype: torch.dtype) -> None:
    known = function(name)
    found = known.derivative(torch.tensor([-torch.inf, torch.inf, torch.nan, 30.0], dtype=dtype))
    far = known.derivative(torch.tensor([-1e4, 1e4], dtype=dtype))
    assert found.dtype == dtype
    assert torch.allclose(found[:2].double(), far.double(), rtol=0, atol=1e-7)
    assert bool(found[2].isnan()) == (name in CURVED)


def test_a_wide_type_is_used_for_a_narrow_one() -> None:
    x = torch.linspace(-5, 5, 200).to(torch.bfloat16)
    for name in CURVED:
        exact = function(name).derivative(x.double())
        # Half a unit in the last place of bfloat16.
        apart = (function(name).derivative(x).double() - exact).abs()
        assert (apart <= exact.abs() * 2**-8 + 1e-7).all()


@pytest.mark.parametrize(
    ("name", "parameters", "says"),
    [
        ("gelu", {"alpha": 1.0}, "no parameter"),
        ("elu", {"alpha": -1.0}, "negative"),
        ("elu", {"alpha": math.nan}, "not finite"),
        ("celu", {"alpha": 0.0}, "not positive"),
        ("softplus", {"beta": 0.0}, "not positive"),
        ("hardtanh", {"min_val": 2.0}, "not below"),
        ("softshrink", {"lambd": -1.0}, "negative"),
        ("rrelu", {}, "no activation"),
    ],
)
def test_parameters_out_of_range_are_refused(
    name: str, parameters: Mapping[str, float], says: str
) -> None:
    with pytest.raises(InputError, match=says) as caught:
        function(name, parameters)
    assert caught.value.hint


def test_pieces_are_of_straight_functions_only() -> None:
    with pytest.raises(InputError, match="straight pieces"):
        pieces("gelu")
