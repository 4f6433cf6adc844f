"""Few-bit tables are optimal: against what others shipped, found and would find."""

from __future__ import annotations

import importlib.util
import itertools
import math
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from shoestring.activations.fewbit import fitting, integrals, polish, tables, weights
from shoestring.activations.fewbit.functions import CURVED, function
from shoestring.activations.fewbit.quantizer import Quantizer
from shoestring.core.errors import InputError
from tests.oracles import fewbit_tables as oracle

BITS = (1, 2, 3, 4)
SYMMETRIC = ("gelu", "gelu_tanh", "silu", "softplus", "logsigmoid", "hardswish")  # f'(-x)=1-f'(x)
EVEN = ("sigmoid", "tanh", "softsign", "tanhshrink")  # f'(-x) = f'(x)
DOMAIN = (-100.0, 100.0)


def curve_of(name: str) -> oracle.Curve:
    known = function(name)
    return lambda x: float(known.derivative_at(np.array([x]))[0])


def normal(x: float) -> float:
    return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


@pytest.mark.parametrize("name", oracle.SHIPPED)
def test_no_table_is_worse_than_the_shipped_one(name: str) -> None:
    for bits, shipped in zip(BITS, oracle.SHIPPED[name], strict=True):
        separate, shared = (tables.builtin(name, bits, sharing=s) for s in (False, True))
        # The figures have nine digits, and some shipped tables are optimal.
        assert separate.error <= shipped * (1 + 1e-8)
        assert shared.error <= separate.error


@pytest.mark.parametrize(("name", "bits"), oracle.STOPPED_EARLY)
def test_contiguous_tables_are_well_below_those_that_stopped_early(name: str, bits: int) -> None:
    shipped = oracle.SHIPPED[name][bits - 1]
    assert tables.builtin(name, bits, sharing=False).error < 0.95 * shipped


@pytest.mark.parametrize(
    ("name", "widths", "ratio"),
    [
        ("gelu", [3], 1.4),
        ("mish", [3], 1.35),
        ("silu", [3], 2.0),
        ("sigmoid", BITS, 3.5),
        ("tanh", BITS, 3.5),
    ],
)
def test_shared_levels_divide_the_error(name: str, widths: list[int], ratio: float) -> None:
    for bits in widths:
        assert tables.builtin(name, bits).error <= oracle.SHIPPED[name][bits - 1] / ratio


@pytest.mark.parametrize(
    ("weight", "known"), [("uniform", oracle.UNIFORM), ("normal", oracle.NORMAL)]
)
def test_tables_are_those_of_another_program(
    weight: str, known: dict[tuple[str, int], tuple[tuple[float, ...], tuple[float, ...]]]
) -> None:
    for (name, bits), (borders, levels) in known.items():
        found = tables.builtin(name, bits, weight=weight, sharing=False)
        digits = 1e-5 if weight == "uniform" else 2e-5  # as many as are given
        assert np.allclose(found.borders, borders, rtol=0, atol=1e-4)
        assert np.allclose(found.levels, levels, rtol=0, atol=digits)
        assert found.codes == tuple(range(2**bits))


@pytest.mark.parametrize("name", oracle.SHARED_LEVELS)
def test_shared_levels_are_better_than_those_of_another_program_and_close(name: str) -> None:
    found, others = tables.builtin(name, 3), np.array(oracle.SHARED_LEVELS[name])
    # These are not stationary to their last digit.
    assert np.allclose(found.levels, others, rtol=0, atol=1e-4)
    assert len(found.borders) == 9
    sampled = integrals.samples(function(name), weights.as_weight("uniform"), DOMAIN)
    theirs = polish.error_of(
        sampled, polish.Table(*polish.nearest_levels(sampled, others), others, 0.0)
    )
    assert theirs * (1 - 1e-6) < found.error < theirs


@pytest.mark.parametrize("sharing", [False, True])
@pytest.mark.parametrize(("weight", "density"), [("uniform", lambda _: 1.0), ("normal", normal)])
@pytest.mark.parametrize("name", ["gelu", "selu", "hardswish", "softsign"])
def test_the_error_is_the_integral(
    name: str, weight: str, density: oracle.Curve, sharing: bool
) -> None:
    found = tables.builtin(name, 2, weight=weight, sharing=sharing)
    values = [found.levels[code] for code in found.codes]
    expected = oracle.error(curve_of(name), found.borders, values, DOMAIN, density)
    assert found.error == pytest.approx(expected, rel=1e-7)
    assert found.error_under(weight) == pytest.approx(expected, rel=1e-7)


def test_the_error_under_another_weight_and_domain_is_the_integral() -> None:
    found = Quantizer.fit("silu", 3)
    values = [found.levels[code] for code in found.codes]
    expected = oracle.error(curve_of("silu"), found.borders, values, DOMAIN, normal)
    assert found.error_under("normal") == pytest.approx(expected, rel=1e-7)
    assert found.error_under(lambda x: 2 * np.exp(-x * x / 2)) == pytest.approx(
        expected * 2 * math.sqrt(2 * math.pi), rel=1e-7
    )
    kept = [(s, y) for s, y in zip(found.borders, values, strict=False) if -1 < s < 2]
    last = values[sum(s < 2 for s in found.borders)]
    inside = oracle.error(
        curve_of("silu"), [s for s, _ in kept], [*(y for _, y in kept), last], (-1.0, 2.0)
    )
    assert found.error_under("uniform", domain=(-1.0, 2.0)) == pytest.approx(inside, rel=1e-7)


@pytest.mark.parametrize("sharing", [False, True])
@pytest.mark.parametrize("weight", ["uniform", "normal"])
@pytest.mark.parametrize("name", CURVED)
def test_borders_lie_in_the_middle_and_levels_are_means(
    name: str, weight: str, sharing: bool
) -> None:
    known = function(name)
    for bits in BITS:
        found = tables.builtin(name, bits, weight=weight, sharing=sharing)
        borders = np.array(found.borders)
        values = np.array(found.levels)[list(found.codes)]
        below, above = (
            known.derivative_at(np.nextafter(borders, side)) for side in (-np.inf, np.inf)
        )
        middle = (values[1:] + values[:-1]) / 2
        jumps = np.abs(above - below) > 1e-9
        assert np.abs(below - middle)[~jumps].max(initial=0) < 1e-8
        # At a jump the middle is passed; nothing better is near.
        assert ((below - middle) * (above - middle))[jumps].max(initial=0) <= 1e-12
        sampled = integrals.samples(known, weights.as_weight(weight), DOMAIN)
        sums = sampled.between(borders)
        for code, level in enumerate(found.levels):
            mass, first, _ = sums[np.array(found.codes) == code].sum(axis=0)
            assert level == pytest.approx(first / mass, abs=1e-9)


@pytest.mark.parametrize("weight", ["uniform", "normal"])
@pytest.mark.parametrize("name", CURVED)
def test_with_shared_levels_each_input_has_the_nearest(name: str, weight: str) -> None:
    x = np.linspace(-12.3, 12.3, 4001)
    slopes = function(name).derivative_at(x)
    for bits in BITS:
        found = tables.builtin(name, bits, weight=weight)
        if found.codes == tuple(range(2**bits)):
            continue  # contiguous, because sharing gains nothing
        given_ = found.derivative(torch.from_numpy(x)).numpy()
        best = oracle.nearest(slopes, found.levels)
        assert np.allclose(np.abs(given_ - slopes), np.abs(best - slopes), rtol=0, atol=1e-9)


def is_symmetric(name: str, found: Quantizer) -> bool:
    borders, levels = np.array(found.borders), np.sort(found.levels)
    if not np.allclose(borders, -borders[::-1], rtol=0, atol=1e-7):
        return False
    if name in SYMMETRIC:
        return np.allclose(levels, 1 - levels[::-1], rtol=0, atol=1e-9)
    return found.codes == found.codes[::-1]


@pytest.mark.parametrize("name", SYMMETRIC)
def test_contiguous_tables_of_symmetric_functions_are_symmetric(name: str) -> None:
    for bits in BITS:
        found = tables.builtin(name, bits, sharing=False)
        if (name, bits) == ("hardswish", 2):
            continue  # see below
        assert is_symmetric(name, found)


@pytest.mark.parametrize("name", EVEN)
def test_shared_tables_of_even_functions_depend_on_the_size_of_x_alone(name: str) -> None:
    for bits in range(1, 7):
        assert is_symmetric(name, tables.builtin(name, bits))


@pytest.mark.parametrize("sharing", [False, True])
@pytest.mark.parametrize("name", SYMMETRIC)
def test_a_table_that_is_not_symmetric_is_better_than_one_that_is(name: str, sharing: bool) -> None:
    sampled = integrals.samples(function(name), weights.as_weight("uniform"), DOMAIN)
    for bits in BITS:
        found = tables.builtin(name, bits, sharing=sharing)
        borders, levels = np.array(found.borders), np.sort(found.levels)
        if sharing:
            other = polish.polished_shared(sampled, (levels + 1 - levels[::-1]) / 2)
        else:
            other = polish.polished_contiguous(sampled, (borders - borders[::-1]) / 2)
        if is_symmetric(name, found):
            assert other.error == pytest.approx(found.error, rel=1e-9)
        else:
            assert found.error < 0.99 * other.error


@pytest.mark.parametrize("sharing", [False, True])
@pytest.mark.parametrize("name", CURVED)
def test_the_error_falls_with_bits(name: str, sharing: bool) -> None:
    errors = [Quantizer.fit(name, bits, sharing=sharing).error for bits in range(1, 7)]
    assert all(after < before for before, after in itertools.pairwise(errors))
    if sharing:
        # In the limit every bit halves the distance of levels.
        assert errors[-2] / errors[-1] == pytest.approx(4, rel=0.12)


def test_a_finer_grid_finds_nothing_better(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("gelu", "selu", "mish", "hardswish"):
        usual = {s: tables.builtin(name, 4, sharing=s).error for s in (False, True)}
        monkeypatch.setattr("shoestring.activations.fewbit.optimum._NUM_CELLS", 1200)
        sampled = integrals.samples(function(name), weights.as_weight("uniform"), DOMAIN)
        for sharing, error in usual.items():
            finer = fitting.best_tables(sampled, (4,), sharing=sharing)[4].error
            assert error == pytest.approx(finer, rel=1e-9)
        monkeypatch.undo()


def test_all_built_in_tables_take_less_than_a_second() -> None:
    tables.builtin("gelu", 1)  # what torch and scipy do once
    tables._family.cache_clear()
    began = time.process_time()
    for name in oracle.SHIPPED:
        for bits in BITS:
            tables.builtin(name, bits)
    assert time.process_time() - began < 1.0
    assert tables.builtin("tanh", 4) is tables.builtin("tanh", 4)


def test_built_in_tables_are_those_that_fit_finds() -> None:
    for name, bits in (("mish", 3), ("relu6", 1), ("gelu", 5)):
        assert tables.builtin(name, bits) == Quantizer.fit(name, bits)
    narrow = Quantizer.fit(function("elu", {"alpha": 0.5}), 2, weight="normal")
    assert narrow == tables.builtin("elu", 2, weight="normal", parameters={"alpha": 0.5})
    assert narrow != tables.builtin("elu", 2, weight="normal")


@given(
    name=st.sampled_from(CURVED),
    bits=st.integers(1, 5),
    centre=st.floats(-4, 4),
    width=st.floats(0.05, 6),
)
@settings(max_examples=25)
def test_sharing_is_never_worse_and_tables_can_be_kept(
    name: str, bits: int, centre: float, width: float
) -> None:
    seen = weights.Histogram.of(
        torch.randn(500, generator=torch.Generator().manual_seed(bits)) * width + centre
    )
    separate, shared = (
        Quantizer.fit(name, bits, weight=seen, sharing=sharing) for sharing in (False, True)
    )
    assert shared.error <= separate.error
    assert np.isfinite([*shared.levels, *separate.levels]).all()
    assert shared.error == pytest.approx(shared.error_under(seen), abs=1e-12)
    for table in (separate, shared):
        assert Quantizer.from_json(table.to_json()) == table


def test_codes_of_a_dtype_are_those_of_the_same_number_in_float64() -> None:
    found = Quantizer.fit("gelu", 4)
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        x = torch.tensor(found.borders, dtype=dtype)
        x = torch.cat([x, x.nextafter(torch.tensor(9.0, dtype=dtype)), -x])
        borders = torch.tensor(found.borders_in(dtype), dtype=dtype)
        inside = (x[:, None] > borders).sum(1)
        assert torch.equal(
            inside, (x.double()[:, None] > torch.tensor(found.borders, dtype=torch.float64)).sum(1)
        )
    ends = torch.tensor([-torch.inf, torch.inf, torch.nan, -1e30])
    low, high = found.levels[found.codes[0]], found.levels[found.codes[-1]]
    assert found.derivative(ends).tolist() == pytest.approx([low, high, low, low])


def test_a_function_with_few_slopes_has_few_borders() -> None:
    corner = Quantizer.fit(F.relu, 2)
    assert corner.error < 1e-12
    assert corner.borders == pytest.approx((0.0,), abs=1e-12)
    assert [corner.levels[code] for code in corner.codes] == pytest.approx([0, 1])
    line = Quantizer.fit(lambda x: 2 * x, 3)
    assert (line.borders, line.error) == ((), 0.0)
    assert line.levels == pytest.approx([2] * 8)


def test_a_jump_that_is_not_announced_is_found() -> None:
    given_ = Quantizer.fit(lambda x: torch.where(x > 0.123456, x, 0.3 * x), 1)
    assert given_.borders == pytest.approx((0.123456,), abs=1e-9)
    assert given_.error < 1e-9
    named = tables.builtin("selu", 3)
    assert Quantizer.fit(F.selu, 3).error == pytest.approx(named.error, rel=1e-9)


def test_a_weight_without_mass_in_most_places_gives_numbers() -> None:
    for bits in (3, 5, 8):
        for sharing in (False, True):
            thin = Quantizer.fit(
                "gelu", bits, weight=lambda x: np.exp(-((x - 1) ** 2) * 50), sharing=sharing
            )
            assert np.isfinite([*thin.levels, thin.error]).all()
            assert min(thin.levels) > -0.2
            assert max(thin.levels) < 1.2


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: Quantizer.fit("gelu", 0), "bits=0"),
        (lambda: Quantizer.fit("gelu", 9), "bits=9"),
        (lambda: Quantizer.fit("gelu", True), "bits=True"),
        (lambda: Quantizer.fit("relu", 2), "two values"),
        (lambda: Quantizer.fit("gelus"), "no activation called"),
        (lambda: Quantizer.fit(3), "cannot be a int"),
        (lambda: Quantizer.fit("gelu", weight="normals"), "no weight"),
        (lambda: Quantizer.fit("gelu", objective="both"), "no objective"),
        (lambda: Quantizer.fit("gelu", domain=(1, -1)), "no inside"),
        (lambda: Quantizer.fit("gelu", domain=(0, math.inf)), "no inside"),
        (lambda: Quantizer.fit("gelu", weight=lambda x: x), "negative or not finite"),
        (lambda: Quantizer.fit("gelu", weight=lambda x: x / 0 * x), "negative or not finite"),
        (lambda: Quantizer.fit("gelu", weight=lambda x: 0 * x), "zero on the whole"),
        (lambda: Quantizer.fit("gelu", weight=weights.Histogram((0, 1), (0,))), "empty"),
        (lambda: Quantizer.fit(lambda x: x - x.mean()), "not elementwise"),
        (lambda: Quantizer.fit(lambda x: x.sum()), "not elementwise"),
        (lambda: Quantizer.fit(lambda x: F.dropout(x, 0.5)), "not elementwise"),
        (lambda: Quantizer.fit(torch.log), "not finite on the whole domain"),
        (lambda: Quantizer.fit(lambda x: x.detach()), "no derivative"),
        (lambda: Quantizer.fit(lambda x: x.unknown()), "fails on a tensor"),
        (lambda: Quantizer.fit(lambda x: 3.0), "no tensor"),
        (lambda: Quantizer.fit(torch.sin, 2).error_under("normal"), "given again"),
        (lambda: Quantizer(1, (0, 1), (1, 0), (0, 1, 0), 0, "relu"), "do not ascend"),
        (lambda: Quantizer(1, (0, 1), (0,), (0, 2), 0, "relu"), "no level"),
        (lambda: Quantizer(1, (0, 1), (0,), (0,), 0, "relu"), "no table"),
        (lambda: Quantizer(1, (0, math.nan), (0,), (0, 1), 0, "relu"), "not finite"),
        (lambda: Quantizer.from_json('{"schema": "shoestring/quantizer/1"}'), "no quantizer"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.filterwarnings("ignore:invalid value")
def test_what_cannot_be_is_refused_with_a_hint(call: object, says: str) -> None:
    assert callable(call)
    with pytest.raises(InputError, match=says) as caught:
        call()
    assert caught.value.hint


def test_importing_computes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("computed at import")

    monkeypatch.setattr(integrals, "samples", refuse)
    place = importlib.util.spec_from_file_location("fresh_tables", tables.__file__)
    assert place is not None
    assert place.loader is not None
    fresh = importlib.util.module_from_spec(place)
    place.loader.exec_module(fresh)
    with pytest.raises(AssertionError, match="computed at import"):
        fresh.builtin("gelu")
