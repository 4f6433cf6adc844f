"""The randomised linear layer: right on average, as noisy as its formula says, and small."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from shoestring.activations.fewbit import sketches
from shoestring.activations.fewbit.randomized_linear import RandomizedLinear, randomized_linear
from shoestring.core.errors import InputError
from shoestring.kernels.hadamard import core
from shoestring.measure.tracing.allocator import measure_step
from tests.activations.fewbit.saved_bytes import saved_bytes
from tests.oracles import sketches as oracle

DRAWS = 3000
M, N = 6, 21  # 21 rows are padded to 24


def problem(seed: int = 0, count: int = N) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a gradient and an input whose rows differ in length."""
    generator = torch.Generator().manual_seed(seed)
    length = torch.rand(2, count, 1, generator=generator, dtype=torch.float64) + 0.2
    g, x = (torch.randn(count, d, generator=generator, dtype=torch.float64) + 0.3 for d in (2, 3))
    return g * length[0], x * length[1]


def products(kind: str, count: int = DRAWS) -> torch.Tensor:
    """Return many estimates of the weight's gradient, ``[count, out, in]``."""
    g, x = problem()
    made = []
    for seed in range(count):
        if kind == "importance":
            picks, weights = sketches.importance(x, size=M, seed=seed)
            left, right = ((t[picks] * weights[:, None]) for t in (g, x))
        else:
            left, right = (sketches.sketched(t, size=M, kind=kind, seed=seed) for t in (g, x))
        made.append(left.T @ right)
    return torch.stack(made)


def off_by(estimates: torch.Tensor, exact: torch.Tensor) -> float:
    """Return how many standard deviations the mean slope along the exact one is away from 1."""
    slopes = (estimates * exact).sum((1, 2)) / exact.square().sum()
    return float((slopes.mean() - 1) / (slopes.std() / len(slopes) ** 0.5))


@pytest.fixture(scope="module", params=sketches.KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def estimates(kind: str) -> torch.Tensor:
    return products(kind)


def test_the_mean_is_the_gradient(estimates: torch.Tensor) -> None:
    g, x = problem()
    exact = g.T @ x
    assert abs(off_by(estimates[:400], exact)) < 3
    assert abs(off_by(estimates, exact)) < 3
    error = (estimates.mean(0) - exact) / (estimates.std(0) / DRAWS**0.5)
    assert float(error.abs().max()) < 3.5  # of each entry


# The first is how far the published program's cosine transform is off; the others are m, N and the
# padded N taken for one another.
@pytest.mark.parametrize("factor", [4054.0, 24 / N, M / (M - 1)])
def test_a_wrong_factor_is_seen(estimates: torch.Tensor, factor: float) -> None:
    g, x = problem()
    count = 400 if factor > 2 else DRAWS
    assert abs(off_by(estimates[:count] * factor, g.T @ x)) > 5


def test_the_variance_is_that_of_the_formula(kind: str, estimates: torch.Tensor) -> None:
    g, x = problem()
    found = (estimates - g.T @ x).square().sum((1, 2))
    expected = oracle.variance(kind, g.numpy(), x.numpy(), M, sketches.padded(N))
    deviation = float(found.std()) / DRAWS**0.5
    assert deviation < 0.06 * expected
    assert abs(float(found.mean()) - expected) < 3.5 * deviation


@pytest.mark.parametrize("kind", ["rademacher", "srht", "rows", "importance"])
@pytest.mark.parametrize("m", [1, 2])
def test_the_formulas_are_those_of_all_sketches_that_there_are(kind: str, m: int) -> None:
    g, x = (t.numpy() for t in problem(count=4))
    mean, spread = oracle.counted(kind, g, x, m)
    assert np.allclose(mean, g.T @ x, rtol=1e-12)
    assert spread == pytest.approx(oracle.variance(kind, g, x, m, padded=4), rel=1e-12)


def matrix(kind: str, count: int, size: int, seed: int) -> torch.Tensor:
    eye = torch.eye(count, dtype=torch.float64)
    return sketches.sketched(eye, size=size, kind=kind, seed=seed)


@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 2**62), st.sampled_from([7, 100]))
def test_entries_of_each_matrix(count: int, size: int, seed: int, most: int) -> None:
    size = min(size, count)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sketches, "MOST", most)  # many parts
        s = {kind: matrix(kind, count, size, seed) for kind in sketches.KINDS[:-1]}
        x = torch.randn(count, 5, dtype=torch.float64)
        for kind, table in s.items():
            found = sketches.sketched(x, size=size, kind=kind, seed=seed)
            assert torch.allclose(found, table @ x, rtol=1e-12, atol=1e-12)
    signs = torch.ones(size, count, dtype=torch.float64) / size**0.5
    assert torch.allclose(s["rademacher"].abs(), signs, rtol=1e-12)
    assert torch.allclose(s["srht"].abs(), signs, rtol=1e-12)
    # Columns of a Hadamard matrix with signs: whole, they are orthogonal.
    total = sketches.padded(count)
    if size == count == total:
        assert torch.allclose(s["srht"].T @ s["srht"], torch.eye(count, dtype=torch.float64))
    taken = s["rows"].nonzero()
    assert len(taken) == size == len(set(taken[:, 1].tolist()))


def test_padding_takes_the_next_order_at_hand() -> None:
    assert [sketches.padded(n) for n in (1, 2, 3, 5, 7, 13, 33, 100, 1000, 1025)] == [
        *(1, 2, 4, 8, 8, 16, 40, 112, 1024, 1280)
    ]
    for width in (1, 12, 20, 28):
        assert core(width).shape == (width, width)


def test_a_sketch_in_parts_is_the_same_in_every_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sketches, "MOST", 64)
    x = torch.randn(50, 4, dtype=torch.float64)
    for kind in sketches.KINDS[:-1]:
        wide = sketches.sketched(x, size=10, kind=kind, seed=1)
        for dtype, bound in ((torch.float32, 1e-5), (torch.bfloat16, 0.1), (torch.float16, 0.02)):
            found = sketches.sketched(x.to(dtype), size=10, kind=kind, seed=1)
            assert found.dtype is dtype
            assert float((found.double() - wide).abs().max()) < bound


@pytest.mark.parametrize("kind", sketches.KINDS[:-1])
def test_the_matrix_is_never_there_as_a_whole(kind: str) -> None:
    x, size = torch.randn(16_000, 80), 2_000  # 122 MiB of a matrix, 5 MiB of rows

    def made() -> None:
        sketches.sketched(x, size=size, kind=kind, seed=0)

    measured = measure_step(made, roots=lambda: [x])
    assert measured.peak - measured.static < 5 * 4 * sketches.MOST


def test_half_precision_does_not_overflow_between() -> None:
    x = torch.full((4096, 1), 60.0, dtype=torch.float16)
    for kind in sketches.KINDS[:-1]:
        assert sketches.sketched(x, size=512, kind=kind, seed=0).isfinite().all()


def test_rows_of_zeros_and_of_no_numbers() -> None:
    x = torch.zeros(6, 2)
    picks, weights = sketches.importance(x, size=3, seed=0)
    assert not weights.any()
    assert int(picks.max()) < 6
    x[2] = 1
    picks, weights = sketches.importance(x, size=3, seed=0)
    assert picks.tolist() == [2, 2, 2]
    x[4] = torch.nan
    assert sketches.importance(x, size=3, seed=0)[1].isnan().all()


# --- the layer ---------------------------------------------------------------------------


def gradients(layer: nn.Module, x: torch.Tensor, seed: int = 0) -> list[torch.Tensor]:
    torch.manual_seed(seed)
    y = layer(x)
    weights = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view(y.shape)
    return list(torch.autograd.grad(y, [x, *layer.parameters()], weights))


def test_layers_mean_gradient_is_the_plain_one(kind: str) -> None:
    plain = nn.Linear(3, 2).double()
    layer = RandomizedLinear.of(plain, ratio=0.3, sketch=kind)
    x = problem()[1].view(7, 3, 3).requires_grad_()
    exact = gradients(plain, x)
    made = [gradients(layer, x, seed) for seed in range(400)]
    assert all(torch.equal(got[0], exact[0]) for got in made)
    assert all(torch.equal(got[2], exact[2]) for got in made)
    assert abs(off_by(torch.stack([got[1] for got in made]), exact[1])) < 3
    assert not torch.equal(made[0][1], made[1][1])


def test_its_numbers_are_drawn_as_dropouts_are(kind: str) -> None:
    layer, x = RandomizedLinear(3, 2, ratio=0.3, sketch=kind), torch.randn(20, 3)
    torch.manual_seed(1)
    y = layer(x)
    state = torch.get_rng_state()
    first = torch.autograd.grad(y.sum(), layer.weight)[0]
    assert torch.equal(state, torch.get_rng_state())  # backward draws nothing
    second = torch.autograd.grad(layer(x).sum(), layer.weight)[0]
    assert not torch.equal(first, second)
    torch.manual_seed(1)
    assert torch.equal(torch.autograd.grad(layer(x).sum(), layer.weight)[0], first)


def test_a_generator_of_its_own() -> None:
    generator = torch.Generator().manual_seed(3)
    layer = RandomizedLinear(3, 2, ratio=0.3, generator=generator)
    x = torch.randn(20, 3, requires_grad=True)
    before = torch.get_rng_state()
    other = copy.deepcopy(layer)
    (got,) = torch.autograd.grad(layer(x).sum(), layer.weight)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(got, torch.autograd.grad(other(x).sum(), other.weight)[0])
    assert not torch.equal(got, torch.autograd.grad(layer(x).sum(), layer.weight)[0])


def test_it_keeps_the_sketch_alone(kind: str) -> None:
    x = torch.randn(10, 100, 64, requires_grad=True)
    layer = RandomizedLinear(64, 32, ratio=0.2, sketch=kind)
    parameters = list(layer.parameters())
    found = saved_bytes(lambda: layer(x * 2), parameters=parameters)
    extra = 200 * (8 + 4) if kind == "importance" else 8
    assert found == 200 * 64 * 4 + extra
    plain = nn.Linear(64, 32)
    assert saved_bytes(lambda: plain(x * 2), parameters=plain.parameters()) == 1000 * 64 * 4


def test_half_precision_and_autocast_keep_half(kind: str) -> None:
    layer = RandomizedLinear(64, 32, ratio=0.2, sketch=kind)
    x, extra = torch.randn(1000, 64), 200 * (8 + 4) if kind == "importance" else 8
    with torch.autocast("cpu", torch.bfloat16):
        found = saved_bytes(lambda: layer(x), parameters=layer.parameters())
    assert found == 200 * 64 * 2 + extra


@pytest.mark.parametrize("frozen", [True, False])
def test_nothing_is_kept_where_nothing_is_to_be_sketched(frozen: bool) -> None:
    plain = nn.Linear(64, 32)
    plain.weight.requires_grad_(not frozen)
    layer = RandomizedLinear.of(plain, ratio=0.2)
    assert layer.weight.requires_grad is not frozen
    x = torch.randn(100, 64, requires_grad=True)
    before = torch.get_rng_state()
    if frozen:
        assert saved_bytes(lambda: layer(x), parameters=layer.parameters()) == 0
        got, expected = (torch.autograd.grad(f(x).sum(), x)[0] for f in (layer, plain))
        assert torch.equal(got, expected)
    else:
        with torch.no_grad():
            assert torch.equal(layer(x), plain(x))
    assert torch.equal(before, torch.get_rng_state())


def test_where_the_sketch_would_be_as_large_the_gradient_is_exact(kind: str) -> None:
    plain = nn.Linear(3, 2)
    for rows, ratio in ((1, 0.2), (5, 1.0), (0, 0.5), (2, 0.8)):
        layer = RandomizedLinear.of(plain, ratio=ratio, sketch=kind)
        x = torch.randn(rows, 3, requires_grad=True)
        got, expected = gradients(layer, x), gradients(plain, x)
        assert all(map(torch.equal, got, expected))
    x = torch.randn(3, requires_grad=True)
    assert all(map(torch.equal, gradients(layer, x), gradients(plain, x)))


def test_an_input_that_needs_no_gradient_and_no_bias(kind: str) -> None:
    layer = RandomizedLinear(8, 4, bias=False, ratio=0.5, sketch=kind)
    x = torch.randn(20, 8)
    y = layer(x)
    assert torch.equal(y, F.linear(x, layer.weight))
    y.sum().backward()
    assert layer.weight.grad is not None
    # The weight is not kept for a gradient that nobody asks for: it may be changed.
    y = layer(x)
    with torch.no_grad():
        layer.weight.add_(1)
    y.sum().backward()


def test_a_weight_that_was_changed_is_refused() -> None:
    layer, x = RandomizedLinear(8, 4, ratio=0.5), torch.randn(20, 8, requires_grad=True)
    y = layer(x)
    with torch.no_grad():
        layer.weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_it_stands_in_for_a_layer_in_place() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).eval()
    net[1].weight = net[0].weight
    before = torch.get_rng_state()
    keys = list(net.state_dict())
    net[0], net[1] = (RandomizedLinear.of(each, ratio=0.5) for each in net)
    assert torch.equal(before, torch.get_rng_state())
    assert list(net.state_dict()) == keys
    assert net[0].weight is net[1].weight
    assert not net[0].training
    assert isinstance(net[0], nn.Linear)
    assert net[0].weight.device.type == "cpu"
    assert "ratio=0.5, sketch='rademacher'" in repr(net[0])


def test_it_learns() -> None:
    torch.manual_seed(0)
    target = torch.randn(1, 8)
    layer = RandomizedLinear(8, 1, ratio=0.25)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.02)
    for _ in range(400):
        x = torch.randn(64, 8)
        loss = F.mse_loss(layer(x), x @ target.T)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 1e-3


def test_the_input_is_let_go() -> None:
    layer, freed = RandomizedLinear(8, 4, ratio=0.5), []
    x = torch.randn(20, 8)

    class Watch:
        def __del__(self) -> None:
            freed.append(True)

    x.watch = Watch()  # type: ignore[attr-defined]
    y = layer(x)
    del x
    gc.collect()
    assert freed
    y.sum().backward()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: RandomizedLinear(4, 4, ratio=0.0), "ratio=0.0 is no share"),
        (lambda: RandomizedLinear(4, 4, ratio=1.5), "ratio=1.5 is no share"),
        (lambda: RandomizedLinear(4, 4, sketch="dct"), "no sketch called 'dct'"),
        (
            lambda: randomized_linear(torch.ones(2, 2), torch.ones(2, 2), ratio=float("nan")),
            "ratio=nan",
        ),
        (lambda: RandomizedLinear.of(RandomizedLinear(4, 4)), "is no torch.nn.Linear"),
    ],
)
def test_bad_input_is_refused(make: Callable[[], object], text: str) -> None:
    with pytest.raises(InputError, match=text):
        make()
