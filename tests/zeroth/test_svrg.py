"""Variance reduction: what is asked for where, and what remains of the noise of batches."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from shoestring.core.errors import InputError
from shoestring.zeroth import ZOSGD
from shoestring.zeroth.found import Found
from shoestring.zeroth.log import Log
from shoestring.zeroth.places import SNAPPED
from shoestring.zeroth.svrg import ZOSVRG, swap
from tests.oracles import zo_compound as oracle

X = torch.randn(24, 6, generator=torch.Generator().manual_seed(1))
DTYPES = [torch.float32, torch.float64, torch.bfloat16]


def net(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """Return a small network, always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)


def loss_of(model: nn.Sequential, rows: slice = slice(None)) -> Callable[[], torch.Tensor]:
    """Return a closure of some rows."""
    return lambda: model(X[rows].to(model[0].weight.dtype)).double().square().mean()


def batches(count: int, start: int = 0) -> Iterator[slice]:
    """Return rows of batches."""
    for step in range(start, start + count):
        yield slice(8 * (step % 3), 8 * (step % 3) + 8)


def train(model: nn.Sequential, opt: ZOSVRG, count: int, start: int = 0) -> None:
    """Make steps."""
    for rows in batches(count, start):
        opt.step(loss_of(model, rows), full=loss_of(model))


def bits(model: nn.Module) -> list[torch.Tensor]:
    """Return copies of the parameters."""
    return [parameter.detach().clone() for parameter in model.parameters()]


def same(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    """Return whether two lists have the same bits."""
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


@settings(max_examples=10)
@given(
    size=st.integers(1, 40),
    q=st.integers(1, 2),
    anchor_q=st.integers(1, 3),
    interval=st.integers(2, 4),
    momentum=st.sampled_from([0.0, 0.8]),
    scale=st.sampled_from([1.0, 3.0]),
)
def test_steps_are_those_of_the_oracle(
    size: int, q: int, anchor_q: int, interval: int, momentum: float, scale: float
) -> None:
    generator = torch.Generator().manual_seed(size)
    rows = torch.randn(5, size, dtype=torch.float64, generator=generator)
    x = nn.Parameter(torch.randn(size, dtype=torch.float64, generator=generator))
    batch = lambda y, k: (rows[k] @ y - 1).square() + y.sin().sum()  # noqa: E731
    full = lambda y: torch.stack([batch(y, k) for k in range(5)]).mean()  # noqa: E731
    opt = ZOSVRG(
        [x],
        lr=1e-3,
        eps=1e-4,
        interval=interval,
        anchor_q=anchor_q,
        anchor_scale=scale,
        q=q,
        momentum=momentum,
        weight_decay=0.1,
        seed=7,
    )
    mine, memory = x.detach().clone(), torch.zeros_like(x)
    anchor, lasting = mine, memory
    for draw in range(2 * interval + 1):
        zs = [oracle.signs(7, draw, index, size) for index in range(max(q, anchor_q))]
        if draw % interval == 0:
            anchor, lasting = mine, oracle.estimate(full, mine, zs[:anchor_q], 1e-4)
            g = scale * lasting
        else:
            part = lambda y, k=draw % 5: batch(y, k)  # noqa: E731
            g = oracle.variance_reduced(part, mine, anchor, zs[:q], 1e-4, lasting)
        memory = momentum * memory + g
        mine = (1 - 1e-3 * 0.1) * mine - 1e-3 * memory
        opt.step(lambda draw=draw: batch(x, draw % 5), full=lambda: full(x))
        assert torch.allclose(x, mine, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("two_sided", "full", "batch"), [(True, 6, 8), (False, 4, 6)])
def test_evaluations_are_counted(two_sided: bool, full: int, batch: int) -> None:
    model, counts = net(), {"full": 0, "batch": 0}
    losses: list[float] = []

    def closure(name: str) -> torch.Tensor:
        assert not torch.is_grad_enabled()
        counts[name] += 1
        losses.append(float(loss_of(model)()))
        return torch.tensor(losses[-1])

    opt = ZOSVRG(model.parameters(), lr=0.01, interval=3, anchor_q=3, q=2, two_sided=two_sided)
    for step in range(7):
        assert opt.anchor_due == (step % 3 == 0)
        losses.clear()
        returned = opt.step(lambda: closure("batch"), full=lambda: closure("full"))
        own = losses if step % 3 == 0 else losses[: batch // 2]  # the rest is of the anchor
        assert returned == pytest.approx(sum(own) / len(own), rel=1e-6)
    assert counts == {"full": 3 * full, "batch": 4 * batch}


def test_where_the_losses_are_asked_for() -> None:
    x = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    opt = ZOSVRG([x], lr=0.1, eps=0.25, interval=5, anchor_q=2)
    seen: list[torch.Tensor] = []
    drawn: list[float] = []

    def closure() -> torch.Tensor:
        seen.append(x.detach().clone())
        drawn.append(float(torch.rand(())))
        return (x - 1).square().sum()

    opt.step(closure, full=closure)
    at, before = x.detach().clone(), len(seen)
    opt.step(closure, full=closure)
    ahead, behind, anchor_ahead, anchor_behind = seen[before:]
    assert torch.allclose((ahead + behind) / 2, at)
    assert torch.equal((anchor_ahead + anchor_behind) / 2, torch.zeros_like(x))
    assert torch.allclose(ahead - behind, anchor_ahead - anchor_behind)  # along one direction
    assert len(set(drawn[before:])) == 1  # under the same random numbers


def test_both_places_have_one_radius() -> None:
    """Also in a step that fits it anew, to weights that have become smaller."""
    x = nn.Parameter(torch.full((3,), 100.0))
    opt = ZOSVRG([x], lr=0.0, interval=5, anchor_q=1)
    opt.param_groups[0]["draws"] = SNAPPED - 1
    opt.step(x.sum, full=x.sum)
    before, radii = opt.state[x]["radius"], []
    with torch.no_grad():
        x.mul_(0.001)

    def closure() -> torch.Tensor:
        radii.append(opt.state[x]["radius"])
        return x.sum()

    opt.step(closure)
    assert len(radii) == 4
    assert len(set(radii)) == 1
    assert radii[0] != before


@pytest.mark.parametrize("dtype", DTYPES)
def test_without_a_learning_rate_weights_and_anchor_come_back(dtype: torch.dtype) -> None:
    model = net(dtype)
    opt = ZOSVRG(model.parameters(), lr=1e-3, interval=1000, anchor_q=2)
    train(model, opt, 2)
    opt.param_groups[0]["lr"] = 0.0
    train(model, opt, 1)
    settled = bits(model)
    anchor = [state["anchor"].clone() for state in opt.state.values()]
    train(model, opt, 200, 3)
    assert same(bits(model), settled)
    assert same([state["anchor"] for state in opt.state.values()], anchor)
    assert not same(anchor, settled)


@pytest.mark.parametrize("call", range(1, 5))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_interrupt_leaves_weights_and_anchor(dtype: torch.dtype, call: int) -> None:
    model = net(dtype)
    opt = ZOSVRG(model.parameters(), lr=0.01, interval=9)
    train(model, opt, 3)
    before = bits(model)
    anchor = [state["anchor"].clone() for state in opt.state.values()]
    calls = [0]

    def failing() -> torch.Tensor:
        calls[0] += 1
        if calls[0] == call:
            raise KeyboardInterrupt
        return loss_of(model)()

    with pytest.raises(KeyboardInterrupt):
        opt.step(failing)
    assert same(bits(model), before)
    assert same([state["anchor"] for state in opt.state.values()], anchor)
    train(model, opt, 1)


def test_parts_of_data_and_of_batches_are_averaged() -> None:
    one, other = net(torch.float64), net(torch.float64)
    options = {"lr": 0.01, "interval": 3, "anchor_q": 2}
    parts, whole = ZOSVRG(one.parameters(), **options), ZOSVRG(other.parameters(), **options)
    for rows in batches(7):
        if parts.anchor_due:
            for part in (slice(0, 6), slice(6, 24)):
                parts.estimate_full(loss_of(one, part), weight=part.stop - part.start)
        else:
            half = rows.start + 4
            parts.estimate(loss_of(one, slice(rows.start, half)))
            parts.estimate(loss_of(one, slice(half, rows.stop)))
        parts.step()
        whole.step(loss_of(other, rows), full=loss_of(other))
    for a, b in zip(bits(one), bits(other), strict=True):
        assert torch.allclose(a, b, rtol=1e-5)


def test_all_data_only_where_an_anchor_is_due() -> None:
    model = net()
    opt = ZOSVRG(model.parameters(), lr=0.01)
    before = bits(model)
    with pytest.raises(InputError, match="no loss over all data"):
        opt.step(loss_of(model))
    with pytest.raises(InputError, match="an anchor is due"):
        opt.estimate(loss_of(model))
    assert same(bits(model), before)
    opt.estimate_full(loss_of(model))
    opt.step()
    with pytest.raises(InputError, match="no anchor is due"):
        opt.estimate_full(loss_of(model))
    opt.step(loss_of(model))  # full is asked for only where it is due
    with pytest.raises(InputError, match="interval=1"):
        ZOSVRG(model.parameters(), interval=1)
    with pytest.raises(InputError, match="anchor_scale"):
        ZOSVRG(model.parameters(), anchor_scale=-1.0)


def test_an_anchor_without_a_finite_loss_is_asked_for_again() -> None:
    model = net()
    opt = ZOSVRG(model.parameters(), lr=0.01, interval=2, anchor_q=1)
    before = bits(model)
    with pytest.warns(RuntimeWarning, match="left out"):
        opt.step(loss_of(model), full=lambda: math.nan)
    settled = bits(model)
    for a, b in zip(before, settled, strict=True):
        assert torch.allclose(a, b)
    assert opt.anchor_due
    train(model, opt, 1)
    assert not opt.anchor_due
    moved = bits(model)
    with pytest.warns(RuntimeWarning, match="left out"):
        opt.step(lambda: math.inf)
    assert same(bits(model), moved)


def test_workers_hold_one_anchor() -> None:
    one, other = net(), net()
    opts = [ZOSVRG(model.parameters(), lr=0.01, interval=3) for model in (one, other)]
    lengths = set()

    def twice(found: Found) -> list[Found]:
        lengths.add(len(found.deltas))
        return [found, found._replace(weight=3.0)]

    opts[0].exchange = twice
    for model, opt in zip((one, other), opts, strict=True):
        train(model, opt, 7)
    assert same(bits(one), bits(other))
    assert lengths == {1 + 1 + 8}


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_log_makes_the_steps_again(dtype: torch.dtype, momentum: float, tmp_path: Path) -> None:
    model, again = net(dtype), net(dtype)
    opt = ZOSVRG(
        model.parameters(), lr=0.01, interval=4, anchor_scale=2.0, momentum=momentum, seed=3
    )
    scheduler = torch.optim.lr_scheduler.ExponentialLR(opt, 0.9)
    for step, rows in enumerate(batches(10)):
        if step == 6:
            opt.param_groups[0]["eps"] = 2e-3  # the radius changes between two anchors
        opt.step(loss_of(model, rows), full=loss_of(model))
        scheduler.step()
    opt.log.save(tmp_path / "run.zolog")
    log = Log.load(tmp_path / "run.zolog")
    made = ZOSVRG(again.parameters(), **log.options)
    for deltas, rates in zip(log.deltas, log.settings, strict=True):
        made.repeat(deltas, rates)
    assert same(bits(model), bits(again))
    made.param_groups[0]["lr"] = opt.param_groups[0]["lr"]
    train(model, opt, 4, 10)  # beyond the next anchor
    train(again, made, 4, 10)
    assert same(bits(model), bits(again))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("made", [4, 6])
def test_a_run_goes_on_from_its_state(made: int, momentum: float) -> None:
    """At an anchor, and in the middle between two."""
    model, resumed = net(), net()
    opt = ZOSVRG(model.parameters(), lr=0.01, interval=4, momentum=momentum)
    train(model, opt, made)
    resumed.load_state_dict(model.state_dict())
    file = io.BytesIO()
    torch.save(opt.state_dict(), file)
    file.seek(0)
    other = ZOSVRG(resumed.parameters())
    other.load_state_dict(torch.load(file, weights_only=True))
    train(model, opt, 7, made)
    train(resumed, other, 7, made)
    assert same(bits(model), bits(resumed))
    copied = copy.deepcopy(other)
    assert copied.anchor_due == other.anchor_due


def test_a_log_that_begins_between_two_anchors_is_refused() -> None:
    model, again = net(), net()
    opt = ZOSVRG(model.parameters(), lr=0.01, interval=4)
    train(model, opt, 2)
    opt.load_state_dict(copy.deepcopy(opt.state_dict()))  # the log begins anew
    again.load_state_dict(model.state_dict())
    train(model, opt, 1)
    made = ZOSVRG(again.parameters(), **opt.log.options)
    made.param_groups[0]["draws"] = opt.log.start
    with pytest.raises(InputError, match="between two anchors"):
        made.repeat(opt.log.deltas[0], opt.log.settings[0])


def test_the_global_generator_is_left_alone() -> None:
    model = net()
    opt = ZOSVRG(model.parameters(), lr=0.01, interval=2, directions="gaussian")
    before = torch.get_rng_state()
    train(model, opt, 4)
    assert torch.equal(before, torch.get_rng_state())


def test_frozen_tied_numbers_and_empty_parameters() -> None:
    weight = nn.Parameter(torch.ones(3, 2).t())  # rows are not in one piece
    tied = nn.Parameter(weight.detach())
    frozen = nn.Parameter(torch.ones(3), requires_grad=False)
    number, empty = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.zeros(0, 3))
    opt = ZOSVRG([weight, tied, frozen, number, empty], lr=0.02, interval=3)
    for step in range(300):
        if step == 100:
            frozen.requires_grad_(True)  # the anchor knows nothing of it
            assert not opt.anchor_due
            opt.step(number.square, full=lambda: number.square() + 0 * frozen.sum())
            frozen.requires_grad_(False)
        closure = lambda: (weight * tied).sum() + number.square() * 3  # noqa: E731
        opt.step(closure, full=closure)
    assert torch.equal(weight, tied)
    assert float(weight.detach().abs().max()) < 0.05
    assert abs(float(number.detach())) < 0.05


@pytest.mark.parametrize("shape", [(), (0,), (3,), (1000, 700)])
def test_swapped_values(shape: tuple[int, ...]) -> None:
    x, y = torch.rand(shape), torch.rand(shape)
    first, second = x.clone(), y.clone()
    swap(x, y)
    assert torch.equal(x, second)
    assert torch.equal(y, first)
    if len(shape) == 2:
        swap(x.t(), y.t())
        assert torch.equal(x, first)
        assert torch.equal(y, second)


def least_squares(make: Callable[[list[nn.Parameter]], ZOSGD | ZOSVRG], seed: int) -> float:
    """Return what is left of the loss above its least after so many samples asked for."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64)  # noqa: E731
    rows, budget, used = draw(128, 10), 60_000, [0]
    target = rows @ draw(10) + draw(128)
    best = torch.linalg.lstsq(rows, target[:, None]).solution[:, 0]
    least = float((rows @ best - target).square().mean())
    x = nn.Parameter(torch.zeros(10, dtype=torch.float64))
    opt = make([x])

    def loss(chosen: torch.Tensor) -> torch.Tensor:
        used[0] += len(chosen)
        return (rows[chosen] @ x - target[chosen]).square().mean()

    everything = torch.arange(128)
    start = float(loss(everything).detach()) - least
    while used[0] < budget:
        chosen = torch.randint(128, (16,), generator=generator)
        if isinstance(opt, ZOSVRG):
            opt.step(lambda chosen=chosen: loss(chosen), full=lambda: loss(everything))
        else:
            opt.step(lambda chosen=chosen: loss(chosen))
    return (float(loss(everything).detach()) - least) / start


def test_less_of_the_noise_of_batches_is_left_than_by_zosgd() -> None:
    """At the same number of samples, averaged over seeds, and ZOSGD at its best rate of two."""
    seeds = range(3)
    ours = sum(least_squares(lambda p: ZOSVRG(p, 0.02), seed) for seed in seeds)
    theirs = min(
        sum(least_squares(lambda p, lr=lr: ZOSGD(p, lr), seed) for seed in seeds)
        for lr in (0.003, 0.001)
    )
    assert ours < 0.01 * theirs


@pytest.mark.parametrize(
    ("condition", "rate", "interval", "most"), [(1.0, 0.7, 10, 18_500), (100.0, 4.0, 2, 16_000)]
)
def test_a_quadratic_is_descended(condition: float, rate: float, interval: int, most: int) -> None:
    """Where each evaluation is of all data; nothing is gained by anchors then."""
    params = [nn.Parameter(torch.zeros(20, 30)), nn.Parameter(torch.zeros(20))]
    scales = [torch.logspace(0, math.log10(condition), p.numel()).view(p.shape) for p in params]
    used = [0]

    def loss() -> torch.Tensor:
        used[0] += 1
        terms = [(s * (p - 1).square()).sum() / 2 for s, p in zip(scales, params, strict=True)]
        return terms[0] + terms[1]

    start = float(loss().detach())
    opt = ZOSVRG(params, rate / sum(float(scale.sum()) for scale in scales), interval=interval)
    while used[0] < most:
        opt.step(loss, full=loss)
    assert float(loss().detach()) < 0.01 * start
