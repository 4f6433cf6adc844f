"""The engine: whatever the way through a step, the same bits, and the weights come back."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from shoestring.core.errors import InputError
from shoestring.kernels.streams import stream_key
from shoestring.zeroth import ZOSGD
from shoestring.zeroth.engine import MOST_SKIPPED, NoFiniteLossError
from shoestring.zeroth.found import Found
from tests.oracles.streams import sign

Net = nn.Sequential


def net(dtype: torch.dtype = torch.float32) -> Net:
    """Return a small network, always the same."""
    generator = torch.Generator().manual_seed(0)
    made = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    for parameter in made.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return made.to(dtype)


def loss_of(model: Net) -> Callable[[], torch.Tensor]:
    """Return a closure."""
    x = torch.randn(16, 6, generator=torch.Generator().manual_seed(1))
    y = torch.randn(16, 3, generator=torch.Generator().manual_seed(2))
    return lambda: (model(x.to(model[0].weight.dtype)).float() - y).square().mean()


def bits(model: Net) -> list[torch.Tensor]:
    """Return copies of the parameters."""
    return [parameter.detach().clone() for parameter in model.parameters()]


def same(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    """Return whether two lists have the same bits."""
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def test_a_step_is_that_of_the_formula() -> None:
    x = nn.Parameter(torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64))
    slope = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    before, deltas = x.detach().clone(), []
    opt = ZOSGD([x], lr=0.1, eps=1e-3, seed=5, weight_decay=0.2, q=2)
    opt.step(lambda: (x * slope).sum() + 0)
    expected = before * (1 - 0.1 * 0.2)
    for index in range(2):
        key = stream_key(stream_key(5, 0, 0, index), 0)
        z = torch.tensor([sign(key, e) for e in range(3)], dtype=torch.float64)
        deltas.append(1e-3 * float(slope @ z))
        expected -= 0.1 * (slope @ z) * z / 2
    assert torch.allclose(x, expected, rtol=1e-6)
    assert opt.log.deltas == [pytest.approx(deltas, rel=1e-6)]


@pytest.mark.parametrize("q", [1, 3])
@pytest.mark.parametrize("directions", ["rademacher", "rank1", "gaussian", "coord:5"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_in_one_call_or_in_two_phases(q: int, directions: str, dtype: torch.dtype) -> None:
    models = [net(dtype), net(dtype)]
    once, twice = (
        ZOSGD(model.parameters(), lr=1e-3, q=q, directions=directions, weight_decay=0.1)
        for model in models
    )
    for _ in range(4):
        once.step(loss_of(models[0]))
        twice.estimate(loss_of(models[1]))
        twice.step()
    assert same(bits(models[0]), bits(models[1]))
    assert not same(bits(models[0]), bits(net(dtype)))


@pytest.mark.parametrize("q", [1, 2])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("directions", ["rademacher", "rank1"])
def test_pending_gives_the_same_bits(q: int, momentum: float, directions: str) -> None:
    clean, pending = net(), net()
    options = {"lr": 1e-3, "q": q, "momentum": momentum, "directions": directions}
    one = ZOSGD(clean.parameters(), **options)
    other = ZOSGD(pending.parameters(), pending=True, **options)
    for step in range(6):
        one.step(loss_of(clean))
        other.step(loss_of(pending))
        assert not same(bits(clean), bits(pending))
        if step == 3:
            other.param_groups[0]["eps"] = one.param_groups[0]["eps"] = 1e-2
        with other.unperturbed():
            assert same(bits(clean), bits(pending))
    state = copy.deepcopy(other.state_dict())
    resumed = net()
    resumed.load_state_dict(pending.state_dict())
    third = ZOSGD(resumed.parameters(), pending=True, **options)
    third.load_state_dict(state)
    third.step(loss_of(resumed))
    other.step(loss_of(pending))
    assert same(bits(resumed), bits(pending))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("directions", ["rademacher", "rank1"])
def test_without_a_learning_rate_the_weights_come_back(dtype: torch.dtype, directions: str) -> None:
    model = net(dtype)
    with torch.no_grad():
        model[0].weight.mul_(torch.logspace(-6, 1, 48).view(8, 6).to(dtype))
    before = bits(model)
    opt = ZOSGD(model.parameters(), lr=0.0, directions=directions)
    opt.step(loss_of(model))
    settled = bits(model)
    for parameter, first in zip(settled, before, strict=True):
        outward = first.abs() + 2e-3
        spacing = torch.nextafter(outward, torch.full_like(outward, math.inf)) - outward
        assert ((parameter - first).abs() <= spacing).all()
    for _ in range(300):
        opt.step(loss_of(model))
    assert same(bits(model), settled)
    for rate in (1e-4, 0.0):  # what an update leaves is settled, too
        opt.param_groups[0]["lr"] = rate
        settled = bits(model)
        opt.step(loss_of(model))
        assert same(bits(model), settled) == (rate == 0)


def test_the_loss_is_the_mean_of_both_sides() -> None:
    x = nn.Parameter(torch.zeros(1))
    seen = []

    def closure() -> torch.Tensor:
        assert not torch.is_grad_enabled()
        seen.append(x.item())
        return (x.detach() + 3).square().sum()

    opt = ZOSGD([x], lr=0.0, eps=0.5)
    assert float(opt.step(closure)) == pytest.approx(9.25)
    assert sorted(seen) == [-0.5, 0.5]
    assert x.item() == 0.0


@pytest.mark.parametrize(
    ("q", "two_sided", "calls"), [(1, True, 2), (3, True, 6), (1, False, 2), (3, False, 4)]
)
def test_evaluations_are_counted(q: int, two_sided: bool, calls: int) -> None:
    model, count = net(), [0]

    def closure() -> torch.Tensor:
        count[0] += 1
        return loss_of(model)()

    ZOSGD(model.parameters(), lr=1e-3, q=q, two_sided=two_sided).step(closure)
    assert count == [calls]


def test_both_sides_meet_the_same_random_numbers() -> None:
    x = nn.Parameter(torch.zeros(4))
    drawn = []

    def closure() -> torch.Tensor:
        drawn.append(torch.rand(3))
        return x.sum()

    torch.manual_seed(0)
    opt = ZOSGD([x], lr=0.1, q=2)
    opt.step(closure)
    assert all(torch.equal(drawn[0], other) for other in drawn)
    torch.manual_seed(0)
    torch.rand(3)  # one evaluation draws as much
    expected = torch.rand(3)
    torch.manual_seed(0)
    opt.step(closure)
    assert torch.equal(torch.rand(3), expected)
    assert not torch.equal(expected, drawn[0])


def test_an_error_or_an_interrupt_leaves_the_weights_as_they_were() -> None:
    model = net()
    opt = ZOSGD(model.parameters(), lr=1e-3)
    opt.step(loss_of(model))
    before, calls = bits(model), [0]

    def failing() -> torch.Tensor:
        calls[0] += 1
        if calls[0] == 2:
            raise KeyboardInterrupt
        return loss_of(model)()

    with pytest.raises(KeyboardInterrupt):
        opt.step(failing)
    assert same(bits(model), before)


def test_a_step_without_a_finite_loss_is_left_out() -> None:
    model = net()
    opt = ZOSGD(model.parameters(), lr=1e-3)
    opt.step(loss_of(model))
    before = bits(model)
    with pytest.warns(RuntimeWarning, match="left out"):
        opt.step(lambda: math.nan)
    assert same(bits(model), before)
    for _ in range(MOST_SKIPPED - 2):
        opt.step(lambda: math.inf)
    with pytest.raises(NoFiniteLossError, match="no loss of the last 10 steps was finite"):
        opt.step(lambda: math.inf)
    assert same(bits(model), before)


def test_several_estimates_are_one_step_on_their_mean() -> None:
    parts, whole = net(torch.float64), net(torch.float64)
    x = torch.randn(8, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    one, other = (ZOSGD(model.parameters(), lr=1e-3) for model in (parts, whole))
    for rows in (x[:4], x[4:]):
        one.estimate(lambda rows=rows: parts(rows).square().mean())
    one.step()
    other.step(lambda: whole(x).square().mean())
    for a, b in zip(bits(parts), bits(whole), strict=True):
        assert torch.allclose(a, b, rtol=1e-6)
    one.estimate(lambda: parts(x).square().mean())
    with pytest.raises(InputError, match="estimates"):
        one.step(lambda: 0.0)


def test_an_exchange_that_fails_leaves_the_weights() -> None:
    model = net()
    opt = ZOSGD(model.parameters(), lr=1e-2)
    opt.step(loss_of(model))
    before = bits(model)

    def lost(found: Found) -> list[Found]:
        raise ConnectionError(f"nobody takes {found}")

    opt.exchange = lost
    with pytest.raises(ConnectionError):
        opt.step(loss_of(model))
    assert same(bits(model), before)
    opt.exchange = None
    opt.step(loss_of(model))
    assert not same(bits(model), before)


def test_a_batch_without_samples_counts_nothing() -> None:
    models = [net(), net()]
    one, other = (ZOSGD(model.parameters(), lr=1e-2) for model in models)
    one.estimate(lambda: torch.zeros(0))
    for opt, model in ((one, models[0]), (other, models[1])):
        opt.estimate(loss_of(model))
        opt.step()
    assert same(bits(models[0]), bits(models[1]))
    with pytest.raises(InputError, match="no batch has a sample"):
        one.step(lambda: torch.zeros(0))
    assert same(bits(models[0]), bits(models[1]))


@pytest.mark.parametrize("pending", [False, True])
def test_what_is_frozen_between_steps_is_put_back_first(pending: bool) -> None:
    model = net()
    opt = ZOSGD(model.parameters(), lr=1e-2, pending=pending)
    opt.step(loss_of(model))
    with opt.unperturbed():
        before = model[0].weight.detach().clone()
    model[0].weight.requires_grad_(False)
    for _ in range(2):
        opt.step(loss_of(model))
    assert torch.equal(model[0].weight, before)


def test_tied_and_empty_parameters() -> None:
    first = nn.Linear(4, 4, bias=False)
    second = nn.Linear(4, 4, bias=False)
    second.weight = nn.Parameter(first.weight.detach())  # another object, the same memory
    empty = nn.Parameter(torch.zeros(0, 3))
    before = first.weight.detach().clone()
    opt = ZOSGD([first.weight, second.weight, empty], lr=0.0)
    seen = []

    def closure() -> float:
        seen.append(float((first.weight.detach() - before).abs().max()))
        return 1.0

    opt.step(closure)
    assert seen == pytest.approx([1e-3, 1e-3], rel=1e-3)


def test_groups_have_radii_and_rates_of_their_own() -> None:
    x, y = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    opt = ZOSGD([{"params": [x], "eps": 0.1, "lr": 1.0}, {"params": [y], "eps": 0.01, "lr": 2.0}])
    seen = []

    def closure() -> torch.Tensor:
        seen.append((float((x - 1).abs().max()), float((y - 1).abs().max())))
        return x.sum() + y.sum()

    opt.step(closure)
    assert seen[0] == pytest.approx((0.1, 0.01), rel=1e-4)
    assert opt.param_groups[1]["lr"] == 2.0


def test_few_bits_cannot_stay_perturbed() -> None:
    model = net(torch.bfloat16)
    with pytest.raises(InputError, match="cannot stay perturbed"):
        ZOSGD(model.parameters(), pending=True).step(loss_of(model))


@pytest.mark.parametrize("eps", [0.0, -1.0, math.nan])
def test_a_radius_must_be_one(eps: float) -> None:
    with pytest.raises(InputError, match="no distance"):
        ZOSGD([nn.Parameter(torch.zeros(1))], eps=eps).step(lambda: 0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"q": 0}, "q=0"),
        ({"directions": "nonsense"}, "no directions called"),
        ({"momentum": 1.5}, "momentum"),
        ({"pending": True, "two_sided": False}, "one-sided"),
    ],
)
def test_options_outside_their_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ZOSGD([nn.Parameter(torch.zeros(1))], **options)
