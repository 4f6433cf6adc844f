"""A learning rate and eps from measurements: right where they are known, and good to train with."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from shoestring.core.errors import InputError
from shoestring.zeroth import ZOSGD, suggest, survey


def quadratic(d: int = 400) -> tuple[nn.Parameter, torch.Tensor]:
    """Return a place and the eigenvalues of a quadratic."""
    generator = torch.Generator().manual_seed(0)
    return nn.Parameter(torch.randn(d, generator=generator)), torch.logspace(-2, 0, d)


def test_slope_and_curvature_of_a_quadratic() -> None:
    x, eigenvalues = quadratic()
    found = survey([x], lambda: (eigenvalues * x * x).sum() / 2, count=64)
    assert found.curvature == pytest.approx(eigenvalues.sum().item(), rel=0.02)
    assert found.slope == pytest.approx((eigenvalues * x).norm().item(), rel=0.3)
    assert found.lr == pytest.approx(1 / (6 * found.curvature))
    steady = survey([x], lambda: (eigenvalues * x * x).sum() / 2, count=64, growth=1)
    assert steady.lr == pytest.approx(1 / found.curvature)
    assert (found.noise, found.signal) == (0.0, math.inf)
    assert str(found).startswith("lr ")


def test_eps_lies_between_rounding_and_curving() -> None:
    x = nn.Parameter(torch.full((50,), 0.01))
    waves = survey([x], lambda: torch.sin(30 * x).sum() + 1e6)
    x = nn.Parameter(torch.full((50,), 0.01, dtype=torch.float64))
    exact = survey([x], lambda: torch.sin(30 * x).sum())
    assert exact.eps < waves.eps < 1 / 30
    assert exact.slope == pytest.approx(30 * math.cos(0.3) * math.sqrt(50), rel=0.4)


@pytest.mark.parametrize("apart", [True, False])
def test_the_noise_of_batches(apart: bool) -> None:
    """Known by samples, or from several batches; and it lowers the rate."""
    x, eigenvalues = quadratic()
    generator = torch.Generator().manual_seed(1)
    shifts = 3 * torch.randn(16, 8, 400, generator=generator)  # 16 batches of 8 samples
    noise = 3 / math.sqrt(8)

    def samples(batch: int) -> torch.Tensor:
        return (eigenvalues * x * x).sum() / 2 + shifts[batch] @ x

    if apart:
        closures = [lambda b=b: samples(b) for b in range(16)]
        found = survey([x], [lambda c=c: c().mean() for c in closures])
    else:
        found = survey([x], lambda: samples(0), count=64)
    slope = (eigenvalues * x).norm().item()
    expected = noise * math.sqrt(400)
    assert found.noise == pytest.approx(expected, rel=0.35)
    assert found.signal < 1
    assert slope < expected


@pytest.mark.parametrize(("rows", "steps"), [(8, 10), (8, 1000), (800, 100), (800, 10_000)])
def test_the_rate_makes_the_most_of_a_run(rows: int, steps: int) -> None:
    x, eigenvalues = quadratic()
    shifts = 3 * torch.randn(rows, 400, generator=torch.Generator().manual_seed(1))
    found = survey([x], lambda: (eigenvalues * x * x).sum() / 2 + shifts @ x, steps=steps)
    square = (found.slope**2 + found.noise**2) * (
        1 - math.sqrt(2 / max(128, steps // 10))
    ) - found.noise**2
    spread = found.curvature * found.noise**2 / steps
    sums = torch.logspace(-8, 6, 20_000, dtype=torch.float64)
    best = float(sums[sums**2 * spread / 2 <= found.loss / 200].max())
    if square > 0:
        left = 1 / (1 + sums * square / found.loss)
        # The noise falls with the loss; its integral along the way is by the trapezoid.
        added = torch.cat([torch.zeros(1), torch.cumulative_trapezoid(left, sums)])
        noise = spread * sums * added / 2
        best = max(best, float(sums[(found.loss * left + noise).argmin()]))
    assert found.lr == pytest.approx(min(best / steps, 1 / (6 * found.curvature)), rel=0.01)
    assert (square > 0) == (rows > 8)


@pytest.mark.parametrize("steep", [0.0, 1.0, 1e3, 1e6])
def test_the_rate_is_right_where_the_walk_ends(steep: float) -> None:
    """Where the curvature is known at any distance."""
    x, sizes = nn.Parameter(torch.zeros(400, dtype=torch.float64)), torch.linspace(0.5, 1.5, 400)

    def loss() -> torch.Tensor:
        return 8 + sizes @ x.float() + (x**2 / 2 + steep * x**4 / 4).sum()

    found = survey([x], loss, count=64, steps=500)
    square = found.slope**2
    walk = found.lr * math.sqrt(500 * square / (1 + found.lr * 500 * square / 8))
    at_the_end = 400 * (1 + steep * min(2 * walk, 0.25) ** 2)
    expected = min(1 / (6 * 400), 1 / (2 * at_the_end))
    assert expected / 1.25 < found.lr < 1.05 * expected
    assert (at_the_end > 3 * 400) == (steep > 1)


@pytest.mark.filterwarnings("ignore::shoestring.zeroth.NoiseWarning")
def test_noise_adds_little_where_nothing_can_be_gained() -> None:
    """At the least loss, all that a run does is to walk about."""
    x, eigenvalues = nn.Parameter(torch.zeros(400)), torch.logspace(-2, 0, 400)
    generator = torch.Generator().manual_seed(1)

    def losses() -> torch.Tensor:
        return 1 + (eigenvalues * x * x).sum() / 2 + shifts @ x

    shifts = torch.randn(16, 400, generator=generator)
    lr, eps = suggest([x], losses, steps=300)
    opt = ZOSGD([x], lr, eps)
    for _ in range(300):
        shifts = torch.randn(16, 400, generator=generator)
        opt.step(losses)
    assert 1e-4 < float((eigenvalues * x.detach() ** 2).sum() / 2) < 0.01


def classifier() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """Return a network and data that it can learn."""
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Linear(10, 32), nn.GELU(), nn.Linear(32, 3))
    for parameter in net.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) / 4
    x = torch.randn(256, 10, generator=generator)
    return net, x, x[:, :3].argmax(1)


def test_what_is_suggested_trains() -> None:
    net, x, y = classifier()
    first = copy.deepcopy(net.state_dict())

    def loss_after(rate: float, eps: float) -> float:
        net.load_state_dict(first)
        opt = ZOSGD(net.parameters(), lr=rate, eps=eps)
        for _ in range(600):
            loss = opt.step(lambda: F.cross_entropy(net(x), y))
        return loss if math.isfinite(loss) else math.inf

    lr, eps = suggest(net, lambda: F.cross_entropy(net(x), y, reduction="none"))
    grid = {factor: loss_after(lr * factor, eps) for factor in (0.01, 0.1, 1.0, 10.0, 100.0)}
    assert min(grid, key=lambda factor: grid[factor]) == 1.0, grid


def test_an_accuracy_may_be_asked() -> None:
    net, x, y = classifier()
    lr, eps = suggest(net, lambda: -(net(x).argmax(1) == y).float())
    opt = ZOSGD(net.parameters(), lr=lr, eps=eps)
    first = float((net(x).argmax(1) == y).float().mean())
    for _ in range(300):
        opt.step(lambda: -(net(x).argmax(1) == y).float().mean())
    assert float((net(x).argmax(1) == y).float().mean()) > first + 0.2


def test_the_parameters_are_where_they_were_and_no_number_is_drawn() -> None:
    net, x, y = classifier()
    before, state = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    survey(net, lambda: F.cross_entropy(net(x), y))
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in net.state_dict().items():
        assert (value - before[name]).abs().max() <= 2.0**-23


def test_evaluations_are_counted() -> None:
    x, eigenvalues = quadratic()
    calls = [0]

    def closure() -> torch.Tensor:
        calls[0] += 1
        return (eigenvalues * x * x).sum() / 2

    assert survey([x], closure).evaluations == calls[0]


@pytest.mark.parametrize(
    ("closure", "words"),
    [
        (lambda: torch.tensor(1.0), "does not change"),
        ("slope", "does not bend"),
        (lambda: torch.tensor(math.nan), "the loss is nan"),
        ([], "nothing to measure"),
    ],
)
def test_what_cannot_be_measured(closure: object, words: str) -> None:
    x = nn.Parameter(torch.ones(3))
    with pytest.raises(InputError, match=words):
        survey([x], x.sum if closure == "slope" else closure)
    with pytest.raises(InputError, match="nothing to measure"):
        survey([torch.ones(3)], lambda: 1.0)
    with pytest.raises(InputError, match=r"growth=0.5 is below 1"):
        survey([x], x.sum, growth=0.5)
