"""Steps that are judged before they are taken: by all parts, and undone to the last bit."""

from __future__ import annotations

import copy
import io
import itertools
import math
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from shoestring.zeroth.conservative import ZOConservative
from shoestring.zeroth.found import Found
from shoestring.zeroth.log import Log
from tests.oracles import zo_compound as oracle

X = torch.randn(16, 6, generator=torch.Generator().manual_seed(1))
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def net(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """Return a small network, always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)


def loss_of(model: nn.Sequential) -> Callable[[], torch.Tensor]:
    """Return a closure."""
    return lambda: model(X.to(model[0].weight.dtype)).float().square().mean()


def bits(model: nn.Module) -> list[torch.Tensor]:
    """Return copies of the parameters."""
    return [parameter.detach().clone() for parameter in model.parameters()]


def same(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    """Return whether two lists have the same bits, signs of zeros among them."""
    pairs = list(zip(left, right, strict=True))
    signs = all(torch.equal(a.signbit(), b.signbit()) for a, b in pairs)
    return signs and all(torch.equal(a, b) for a, b in pairs)


@settings(max_examples=10)
@given(
    size=st.integers(1, 66),
    q=st.integers(1, 3),
    lr=st.sampled_from([1e-3, 0.1, 1.0, 30.0]),
    decay=st.sampled_from([0.0, 0.1]),
    seed=st.integers(0, 1000),
)
def test_a_step_is_that_of_the_oracle(
    size: int, q: int, lr: float, decay: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = nn.Parameter(torch.randn(size, dtype=torch.float64, generator=generator))
    centre = torch.randn(size, dtype=torch.float64, generator=generator)
    f = lambda y: (y - centre).square().sum() + y.sin().sum()  # noqa: E731
    opt = ZOConservative([x], lr=lr, eps=1e-4, q=q, weight_decay=decay, seed=seed)
    for draw in range(3):
        zs = [oracle.signs(seed, draw, index, size) for index in range(q)]
        before = x.detach().clone()
        expected, side = oracle.conservative(f, before, zs, lr, 1e-4, decay)
        opt.step(lambda: f(x))
        assert torch.allclose(x, expected, rtol=1e-5, atol=1e-7)
        forward, backward = opt.log.deltas[-1][q:]
        assert (side == 1) == (forward < 0 and forward <= backward)
        assert (side == -1) == (backward < 0 and backward < forward)


@pytest.mark.parametrize("q", [1, 3])
def test_evaluations_are_counted(q: int) -> None:
    model, losses = net(), []

    def closure() -> torch.Tensor:
        assert not torch.is_grad_enabled()
        losses.append(float(loss_of(model)()))
        return torch.tensor(losses[-1])

    returned = ZOConservative(model.parameters(), lr=0.01, q=q).step(closure)
    assert len(losses) == 2 * q + 3
    assert returned == pytest.approx(sum(losses) / len(losses), rel=1e-6)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("directions", ["rademacher", "gaussian"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_parameters_that_stay_keep_their_bits(
    dtype: torch.dtype, directions: str, momentum: float
) -> None:
    model = net(dtype)
    with torch.no_grad():
        model[0].bias.zero_().neg_()
    opt = ZOConservative(
        model.parameters(), 100.0, directions=directions, momentum=momentum, weight_decay=0.1
    )
    opt.step(loss_of(model))  # it settles them, as the engine does once
    stayed = 0
    for _ in range(40):
        before = bits(model)
        opt.step(loss_of(model))
        moved = min(opt.log.deltas[-1][1:]) < 0
        stayed += not moved
        assert moved or same(bits(model), before)
    assert stayed > 10


def test_the_loss_never_rises_on_the_batch() -> None:
    model = net(torch.float64)
    opt = ZOConservative(model.parameters(), lr=0.3)
    losses = []
    for _ in range(100):
        opt.step(loss_of(model))
        losses.append(float(loss_of(model)().detach()))
    assert all(after <= before * (1 + 1e-9) for before, after in itertools.pairwise(losses))
    assert losses[-1] < 0.6 * losses[0]


def test_candidates_without_a_finite_loss_are_not_taken() -> None:
    x = nn.Parameter(torch.full((3,), 2.0, dtype=torch.float64))
    opt = ZOConservative([x], lr=100.0)
    opt.step(x.sum)
    opt.param_groups[0]["lr"] = 0.0
    opt.step(x.sum)  # settled anew, for it has grown
    opt.param_groups[0]["lr"] = 100.0
    settled, sides = x.detach().clone(), []

    def closure() -> float:
        far = float((x - settled).abs().max()) > 1.0
        return math.nan if far else float(x.detach().sum())

    for _ in range(5):
        opt.step(closure)
        sides += opt.log.deltas[-1][1:]
    assert torch.equal(x, settled)
    assert min(sides) > 1e38


def test_a_step_without_a_finite_slope_is_left_out() -> None:
    model = net()
    opt = ZOConservative(model.parameters(), lr=0.01)
    opt.step(loss_of(model))
    before, calls = bits(model), [0]

    def nothing() -> float:
        calls[0] += 1
        return math.nan

    with pytest.warns(RuntimeWarning, match="left out"):
        opt.step(nothing)
    assert same(bits(model), before)
    assert calls == [2]  # there is nothing to judge


@pytest.mark.parametrize("call", range(1, 6))
def test_an_interrupt_leaves_the_weights_as_they_were(call: int) -> None:
    model = net()
    opt = ZOConservative(model.parameters(), lr=0.01, momentum=0.5)
    opt.step(loss_of(model))
    before, kept = bits(model), copy.deepcopy(opt.state_dict()["state"])
    calls = [0]

    def failing() -> torch.Tensor:
        calls[0] += 1
        if calls[0] == call:
            raise KeyboardInterrupt
        return loss_of(model)()

    with pytest.raises(KeyboardInterrupt):
        opt.step(failing)
    assert same(bits(model), before)
    for index, state in opt.state_dict()["state"].items():
        assert torch.equal(state["momentum_buffer"], kept[index]["momentum_buffer"])
    opt.step(loss_of(model))


def test_all_parts_judge() -> None:
    x = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    y = nn.Parameter(x.detach().clone())
    one = ZOConservative([x], lr=0.09)
    other = ZOConservative([y], lr=0.09)
    parts = [lambda v: v.square().sum() * 3, lambda v: (v - 1).square().sum() * 5]
    counts = [0, 0]
    for step in range(8):
        one.param_groups[0]["lr"] = other.param_groups[0]["lr"] = 0.09 if step < 4 else 5.0
        for k, part in enumerate(parts):

            def closure(k: int = k, part: Callable = part) -> torch.Tensor:
                counts[k] += 1
                return part(x)

            one.estimate(closure, weight=k + 1.0)
        one.step()
        other.step(lambda: (parts[0](y) + 2 * parts[1](y)) / 3)
        assert torch.allclose(x, y, rtol=1e-6)
    assert counts == [40, 40]
    assert {min(rises[1:]) < 0 for rises in one.log.deltas} == {True, False}


class Meeting:
    """Lets two threads tell each other what they found."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(2, timeout=20)
        self.told: list[Found | None] = [None, None]
        self.lengths: list[int] = []

    def of(self, rank: int) -> Callable[[Found], list[Found]]:
        """Return the exchange of one of them."""

        def exchange(found: Found) -> list[Found]:
            self.told[rank] = found
            self.lengths.append(len(found.deltas))
            self.barrier.wait()
            both = [part for part in self.told if part is not None]
            self.barrier.wait()
            return both

        return exchange


def test_workers_judge_together() -> None:
    xs = [nn.Parameter(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)) for _ in range(3)]
    losses = [lambda v, c=c: (v - c).square().sum() for c in (0.0, 3.0)]
    *workers, whole = (ZOConservative([x], lr=0.7, q=2) for x in xs)
    meeting = Meeting()

    def work(rank: int) -> None:
        workers[rank].exchange = meeting.of(rank)
        for _ in range(6):
            workers[rank].step(lambda: losses[rank](xs[rank]))

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for _ in range(6):
        whole.step(lambda: (losses[0](xs[2]) + losses[1](xs[2])) / 2)
    assert torch.equal(xs[0], xs[1])
    assert torch.allclose(xs[0], xs[2], rtol=1e-6)
    assert workers[0].log.deltas == workers[1].log.deltas
    assert {min(rises[2:]) < 0 for rises in whole.log.deltas} == {True, False}
    assert set(meeting.lengths) == {4}  # whoever sends them may count on one length
    assert len(meeting.lengths) == 2 * 6 * 2


def test_all_evaluations_meet_the_same_random_numbers() -> None:
    x = nn.Parameter(torch.ones(4))
    drawn: list[torch.Tensor] = []

    def closure() -> torch.Tensor:
        drawn.append(torch.rand(3))
        return x.square().sum()

    torch.manual_seed(0)
    opt = ZOConservative([x], lr=0.1)
    opt.step(closure)
    after = torch.rand(3)
    assert len(drawn) == 5
    assert all(torch.equal(drawn[0], other) for other in drawn)
    torch.manual_seed(0)
    torch.rand(3)  # one evaluation draws as much
    assert torch.equal(torch.rand(3), after)
    opt.estimate(closure)
    torch.manual_seed(7)  # such as a loader that draws the next batch
    opt.step()
    assert all(torch.equal(drawn[5], other) for other in drawn[5:])
    torch_after = torch.rand(3)
    torch.manual_seed(7)
    assert torch.equal(torch.rand(3), torch_after)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_log_makes_the_steps_again(dtype: torch.dtype, momentum: float, tmp_path: Path) -> None:
    model, again = net(dtype), net(dtype)
    opt = ZOConservative(model.parameters(), lr=1.0, momentum=momentum, seed=3, q=2)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(opt, 0.7)
    for _ in range(12):
        opt.step(loss_of(model))
        scheduler.step()
    opt.log.save(tmp_path / "run.zolog")
    log = Log.load(tmp_path / "run.zolog")
    assert {min(rises[2:]) < 0 for rises in log.deltas} == {True, False}
    made = ZOConservative(again.parameters(), **log.options)
    for deltas, rates in zip(log.deltas, log.settings, strict=True):
        made.repeat(deltas, rates)  # without a closure
    assert same(bits(model), bits(again))
    opt.step(loss_of(model))
    made.param_groups[0]["lr"] = opt.param_groups[0]["lr"]
    made.step(loss_of(again))
    assert same(bits(model), bits(again))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_run_goes_on_from_its_state(momentum: float) -> None:
    model, resumed = net(), net()
    opt = ZOConservative(model.parameters(), lr=0.3, momentum=momentum)
    for _ in range(5):
        opt.step(loss_of(model))
    resumed.load_state_dict(model.state_dict())
    file = io.BytesIO()
    torch.save(opt.state_dict(), file)
    file.seek(0)
    other = ZOConservative(resumed.parameters())
    other.load_state_dict(torch.load(file, weights_only=True))
    for _ in range(5):
        opt.step(loss_of(model))
        other.step(loss_of(resumed))
    assert same(bits(model), bits(resumed))


def test_frozen_tied_numbers_and_empty_parameters() -> None:
    weight = nn.Parameter(torch.ones(2, 3))
    tied = nn.Parameter(weight.detach())
    frozen = nn.Parameter(torch.ones(3), requires_grad=False)
    number, empty = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.zeros(0, 3))
    opt = ZOConservative([weight, tied, frozen, number, empty], lr=0.02)
    for _ in range(300):
        opt.step(lambda: (weight * tied).sum() + (number * frozen).square().sum())
    assert torch.equal(weight, tied)
    assert float(weight.detach().abs().max()) < 0.05
    assert abs(float(number.detach())) < 0.05
    assert torch.equal(frozen, torch.ones(3))


@pytest.mark.parametrize(("condition", "goal"), [(1.0, 0.01), (100.0, 0.03)])
def test_a_quadratic_is_descended(condition: float, goal: float) -> None:
    """In 20,000 evaluations; it needs 14,000 where the condition is 1."""
    params = [nn.Parameter(torch.zeros(20, 30)), nn.Parameter(torch.zeros(20))]
    scales = [torch.logspace(0, math.log10(condition), p.numel()).view(p.shape) for p in params]

    def loss() -> torch.Tensor:
        terms = [(s * (p - 1).square()).sum() / 2 for s, p in zip(scales, params, strict=True)]
        return terms[0] + terms[1]

    start = float(loss().detach())
    opt = ZOConservative(params, lr=1 / sum(float(scale.sum()) for scale in scales))
    for _ in range(2900 if condition == 1 else 4000):
        opt.step(loss)
    assert float(loss().detach()) < goal * start
